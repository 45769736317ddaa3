"""What a scope asks of another node: to tell when a name appears there, its version of syn. Layer: groups.

Nothing on the BEAM tells other nodes when a name appears, and a scope process tells only visible ones. So a
small process is started on the peer, the way ``rpc`` does, that looks at its own node's names five times a
second and ends when the name is there. That is cheap for the peer (a table lookup, no message leaves it) and
silent on the connection: nothing is sent until it ends. It also ends when our scope process ends or the
connection goes, as it monitors the one and with it the other.

What runs there is stdlib's ``erl_eval:exprs/2``, so nothing has to be installed, with expressions that any
Erlang node of OTP 25 or later understands::

    R = erlang:monitor(process, Owner),
    F = fun Look() ->
            case erlang:whereis(Name) of
                undefined -> receive {_, R, _, _, _} -> gone after 200 -> Look() end;
                _ -> registered
            end
        end,
    F()

A node that does not run what it is sent (another pyglyn node) answers ``undef``; see ``discovery`` for what
happens then.
"""

from __future__ import annotations

from typing import Final

from pyglyn import etf
from pyglyn.errors import RemoteError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import Node

LOOK_EVERY_MS: Final = 200

_EXPRESSIONS: Final = etf.text.parse(f"""
[{{match, 1, {{var, 1, 'R'}},
    {{call, 1, {{remote, 1, {{atom, 1, erlang}}, {{atom, 1, monitor}}}},
      [{{atom, 1, process}}, {{var, 1, 'Owner'}}]}}}},
 {{match, 1, {{var, 1, 'F'}},
    {{named_fun, 1, 'Look',
      [{{clause, 1, [], [],
        [{{'case', 1,
            {{call, 1, {{remote, 1, {{atom, 1, erlang}}, {{atom, 1, whereis}}}}, [{{var, 1, 'Name'}}]}},
            [{{clause, 1, [{{atom, 1, undefined}}], [],
               [{{'receive', 1,
                  [{{clause, 1,
                     [{{tuple, 1, [{{var, 1, '_'}}, {{var, 1, 'R'}}, {{var, 1, '_'}}, {{var, 1, '_'}},
                                   {{var, 1, '_'}}]}}],
                     [], [{{atom, 1, gone}}]}}],
                  {{integer, 1, {LOOK_EVERY_MS}}},
                  [{{call, 1, {{var, 1, 'Look'}}, []}}]}}]}},
             {{clause, 1, [{{var, 1, '_'}}], [], [{{atom, 1, registered}}]}}]}}]}}]}}}},
 {{call, 1, {{var, 1, 'F'}}, []}}]
""")


async def until_registered(node: Node, peer: str, name: Atom, owner: Pid) -> bool:
    """Wait until a process is registered as ``name`` on ``peer``; False if that node cannot be watched.

    Args:
        owner: the process for which this is; the watch ends with it.
    """
    bindings: list[Term] = [(Atom("Owner"), owner), (Atom("Name"), name)]
    try:
        answer = await node.erpc(peer, "erl_eval", "exprs", [_EXPRESSIONS, bindings], timeout=None)
    except RemoteError:
        return False
    match answer:
        case (Atom("value"), Atom("registered"), _):
            return True
    return False


async def syn_version(node: Node, peer: str) -> tuple[int, ...] | None:
    """Ask a node which version of syn it runs; None if it does not tell."""
    try:
        answer = await node.erpc(peer, "application", "get_key", [Atom("syn"), Atom("vsn")])
    except (RemoteError, TimeoutError):
        return None
    match answer:
        case (Atom("ok"), list(text)) if all(isinstance(c, int) and 0 < c < 128 for c in text):
            parts = "".join(map(chr, text)).split("-")[0].split(".")
            return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None
    return None
