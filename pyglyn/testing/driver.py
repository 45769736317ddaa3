"""What a node under test runs to be driven over its own stdio, and the frames it understands.

The driver is Erlang *expressions*, not a module, so that it runs on an installation without a compiler.
Requests come in on the node's standard input and answers go out on a pipe it inherits; what the node prints
stays on standard output. Every frame is preceded by its length in 4 bytes, big-endian, as all integers here.

Request layout::

    request_id:8 | 0 (evaluate) | text_length:4 | text (UTF-8)
                 | { name_length:4 | name (UTF-8) | term_length:4 | term }*       one per variable
    request_id:8 | 1 (cancel)

Answer layout::

    request_id:8 | status:1 | term        status 0: the value; 1: {Class, Reason, Stacktrace}

Request id 0 is the greeting, sent once at start: ``{OtpRelease, OsPid, Node}``. Each evaluation runs in an
Erlang process of its own. When standard input ends, the node halts.
"""

from __future__ import annotations

from collections.abc import Mapping

EVALUATE = 0
CANCEL = 1

OK = 0
RAISED = 1

GREETING = 0

_DRIVER = r"""
spawn(fun() ->
    Port = open_port({fd, 0, ANSWERS}, [binary, {packet, 4}, eof]),
    Answer = fun(Id, Status, Term) -> port_command(Port, [<<Id:64, Status>>, term_to_binary(Term)]) end,
    Variables = fun Self(<<NL:32, Name:NL/binary, TL:32, Term:TL/binary, Rest/binary>>, Bound) ->
                        Variable = list_to_atom(unicode:characters_to_list(Name)),
                        Self(Rest, erl_eval:add_binding(Variable, binary_to_term(Term), Bound));
                    Self(<<>>, Bound) -> Bound
                end,
    Describe = fun(M, E) -> unicode:characters_to_binary(M:format_error(E)) end,
    Parse = fun(Text) ->
                case erl_scan:string(unicode:characters_to_list(Text)) of
                    {ok, Tokens, _} ->
                        case erl_parse:parse_exprs(Tokens) of
                            {ok, Exprs} -> Exprs;
                            {error, {_, M, E}} -> error({syntax, Describe(M, E)})
                        end;
                    {error, {_, M, E}, _} -> error({syntax, Describe(M, E)})
                end
            end,
    Evaluate = fun(Id, <<L:32, Text:L/binary, Rest/binary>>) ->
                   try
                       Exprs = Parse(Text),
                       Bound = Variables(Rest, erl_eval:new_bindings()),
                       {value, Value, _} = erl_eval:exprs(Exprs, Bound),
                       Answer(Id, 0, Value)
                   catch Class:Reason:Stack -> Answer(Id, 1, {Class, Reason, Stack})
                   end
               end,
    Loop = fun Self(Running) ->
        receive
            {Port, {data, <<Id:64, 0, Request/binary>>}} ->
                {Pid, Ref} = spawn_monitor(fun() -> Evaluate(Id, Request) end),
                Self(Running#{Id => {Pid, Ref}, Ref => Id});
            {Port, {data, <<Id:64, 1>>}} ->
                case Running of
                    #{Id := {Pid, _}} -> exit(Pid, kill);
                    #{} -> ok
                end,
                Self(Running);
            {'DOWN', Ref, process, _, Reason} ->
                #{Ref := Id} = Running,
                Reason =:= normal orelse Answer(Id, 1, {exit, Reason, []}),
                Self(maps:without([Id, Ref], Running));
            {Port, eof} ->
                erlang:halt(0, [{flush, false}]);
            _ ->
                Self(Running)
        end
    end,
    Release = list_to_integer(erlang:system_info(otp_release)),
    Answer(0, 0, {Release, list_to_integer(os:getpid()), node()}),
    Loop(#{})
end).
"""


def expressions(answer_descriptor: int) -> str:
    """Return the driver, for ``erl -eval``; it writes its answers to the file descriptor given."""
    return _DRIVER.replace("ANSWERS", str(answer_descriptor))


def evaluate_request(request_id: int, text: str, variables: Mapping[str, bytes]) -> bytes:
    """Build the frame that asks for an evaluation, its length included.

    Args:
        request_id: any number above 0 that is not in use.
        text: Erlang expressions, separated by commas, with or without the full stop.
        variables: values for the variables of the expressions, each an encoded term with its version byte.
    """
    if not text.rstrip().endswith("."):
        text = f"{text}\n."
    parts = [request_id.to_bytes(8, "big"), bytes((EVALUATE,)), _counted(text.encode())]
    for name, term in variables.items():
        parts += (_counted(name.encode()), _counted(term))
    return _counted(b"".join(parts))


def cancel_request(request_id: int) -> bytes:
    """Build the frame that kills an evaluation, its length included."""
    return _counted(request_id.to_bytes(8, "big") + bytes((CANCEL,)))


def split_answer(frame: bytes) -> tuple[int, int, bytes]:
    """Take an answer frame (without its length) apart: request id, status, encoded term."""
    return int.from_bytes(frame[:8], "big"), frame[8], frame[9:]


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
