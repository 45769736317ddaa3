"""In whose name a peer may speak: what it sends as another node's process ends the connection, as in OTP.

The node above relies on it and does not look again (see ``node.router``).
"""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.dist import RECOMMENDED, Channel, MessageReceived, ProtocolBroken
from pyglyn.dist.control import Op
from pyglyn.etf import Atom, Pid, Reference, encode_bare

OURS, PEERS, THIRD = Pid("b@host", 2, 0, 1), Pid("a@host", 1, 0, 1), Pid("c@host", 3, 0, 1)
REF = Reference("a@host", 1, (1, 2, 3))
MFA = (Atom("m"), Atom("f"), 0)
WHY, TOKEN, WHO = Atom("why"), Atom("token"), "who"

IN_ITS_OWN_NAME: dict[Op, tuple[Any, ...]] = {
    Op.LINK: (WHO, OURS),
    Op.UNLINK: (WHO, OURS),
    Op.UNLINK_ID: (7, WHO, OURS),
    Op.UNLINK_ID_ACK: (7, WHO, OURS),
    Op.EXIT: (WHO, OURS, WHY),
    Op.EXIT_TT: (WHO, OURS, TOKEN, WHY),
    Op.EXIT2: (WHO, OURS, WHY),
    Op.EXIT2_TT: (WHO, OURS, TOKEN, WHY),
    Op.PAYLOAD_EXIT: (WHO, OURS),
    Op.PAYLOAD_EXIT_TT: (WHO, OURS, TOKEN),
    Op.PAYLOAD_EXIT2: (WHO, OURS),
    Op.PAYLOAD_EXIT2_TT: (WHO, OURS, TOKEN),
    Op.MONITOR_P: (WHO, OURS, REF),
    Op.DEMONITOR_P: (WHO, OURS, REF),
    Op.SPAWN_REQUEST: (REF, WHO, OURS, MFA, []),
    Op.SPAWN_REQUEST_TT: (REF, WHO, OURS, MFA, [], TOKEN),
}
"""The signals with their sender left open."""


def outcome(op: Op, sender: Pid) -> Any:
    channel = Channel(RECOMMENDED, 0.0, local_node="b@host", peer_node="a@host")
    control = (op.value, *(sender if field == WHO else field for field in IN_ITS_OWN_NAME[op]))
    body = b"\x83D\0" + encode_bare(control)
    if op.name.startswith(("PAYLOAD", "SPAWN_REQUEST")):
        body += encode_bare([])
    [event] = channel.receive_data(len(body).to_bytes(4) + body)
    return event


@pytest.mark.parametrize("op", IN_ITS_OWN_NAME, ids=lambda op: op.name)
@pytest.mark.parametrize("sender", [THIRD, OURS], ids=["a third node's", "our own"])
def test_a_signal_in_another_nodes_name_ends_the_connection(op: Op, sender: Pid) -> None:
    assert isinstance(outcome(op, PEERS), MessageReceived)
    event = outcome(op, sender)
    assert isinstance(event, ProtocolBroken)
    assert str(event.error) == f"{op.name}: from a process of {sender.node}, not of this peer"


@pytest.mark.parametrize("op", IN_ITS_OWN_NAME, ids=lambda op: op.name)
def test_a_process_of_an_earlier_incarnation_of_the_peer_may_speak(op: Op) -> None:
    """OTP looks at the node's name only (dist.c)."""
    assert isinstance(outcome(op, Pid("a@host", 1, 0, 99)), MessageReceived)
