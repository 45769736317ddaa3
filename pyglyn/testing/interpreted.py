"""Erlang modules on a node without a compiler: their functions interpreted by the node's own `erl_eval`.

The wheel with OTP 28 has the parser and the evaluator (they are in stdlib) but no compiler. Any
process must be able to call the module, compiled callers such as `gen_server` included, so a real
module has to be loaded. It is assembled by hand: each of its functions gathers its arguments in a
list and passes them to a fun that interprets the function of that name and arity. The object code
needs a dozen instructions, the same since long before OTP 25.

Other than compiled code does: all functions are exported, and it is many times slower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pyglyn.testing.terms import binary


class Evaluates(Protocol):
    """A node that evaluates Erlang expressions; `Beam` does."""

    async def eval_bytes(self, text: str, *, timeout: float | None = 10.0, **bindings: bytes) -> bytes: ...


# `fun name/1` becomes `fun module:name/1`, because erl_eval does not know the functions around an expression.
_INTERPRET = r"""
Path = unicode:characters_to_list(Source),
{ok, Parsed} = epp:parse_file(Path, [{includes, [filename:dirname(Path)]}]),
case [M:format_error(E) || {error, {_, M, E}} <- Parsed] of
    [] -> ok;
    Errors -> error({syntax, unicode:characters_to_binary(lists:join("; ", Errors))})
end,
[Module | _] = [M || {attribute, _, module, M} <- Parsed],
Qualify = fun Self({'fun', A, {function, F, Arity}}) ->
                  {'fun', A, {function, {atom, A, Module}, {atom, A, F}, {integer, A, Arity}}};
              Self(Tuple) when is_tuple(Tuple) -> list_to_tuple(Self(tuple_to_list(Tuple)));
              Self([Head | Tail]) -> [Self(Head) | Self(Tail)];
              Self(Other) -> Other
          end,
Key = list_to_atom("pyglyn_interpreted_" ++ atom_to_list(Module)),
Local = {value, fun(F, Args) -> (persistent_term:get(Key))(F, Args) end},
Functions = maps:from_list(
    [begin
         {value, Fun, _} = erl_eval:expr({'fun', A, {clauses, Qualify(Clauses)}}, [], Local),
         {{F, Arity}, Fun}
     end || {function, A, F, Arity, Clauses} <- erl_expand_records:module(Parsed, [])]),
persistent_term:put(Key, fun(F, Args) ->
                             case Functions of
                                 #{{F, length(Args)} := Fun} -> apply(Fun, Args);
                                 #{} -> erlang:raise(error, undef, [{Module, F, Args, []}])
                             end
                         end)
"""

# Operands: u(nsigned), a(tom), x and y registers; their tag is in the lowest 3 bits, as in every BEAM file.
_ASSEMBLE = r"""
Names = [Module, Key, erlang, persistent_term, get, apply, module_info, get_module_info
         | lists:usort([F || {F, _} <- maps:keys(Functions)])],
Numbers = maps:from_list(lists:zip(lists:reverse(Names), lists:seq(length(Names), 1, -1))),
Operand = fun(Tag, N) when N < 16 -> <<N:4, 0:1, Tag:3>>;
             (Tag, N) when N < 2048 -> <<(N bsr 8):3, 1:2, Tag:3, (N band 255)>>
          end,
Encode = fun({u, N}) -> Operand(0, N);
            (nil) -> Operand(2, 0);
            ({a, Name}) -> Operand(2, maps:get(Name, Numbers));
            ({x, N}) -> Operand(3, N);
            ({y, N}) -> Operand(4, N)
         end,
Op = fun(Code, Operands) -> [Code | lists:map(Encode, Operands)] end,
Gather = fun(0) -> Op(64, [nil, {x, 0}]);
            (N) -> [Op(16, [{u, 2 * N}, {u, N}]),
                    Op(69, [{x, N - 1}, nil, {x, N}]),
                    [Op(69, [{x, I}, {x, N}, {x, N}]) || I <- lists:seq(N - 2, 0, -1)],
                    Op(64, [{x, N}, {x, 0}])]
         end,
Body = fun(module_info, Arity) ->
               [Op(64, [{x, 0}, {x, 1}]) || Arity =:= 1]
               ++ [Op(64, [{a, Module}, {x, 0}]), Op(78, [{u, Arity + 1}, {u, 2 + Arity}])];
          (F, Arity) ->
               [Gather(Arity),
                Op(12, [{u, 1}, {u, 1}]), Op(64, [{x, 0}, {y, 0}]), Op(64, [{a, Key}, {x, 0}]),
                Op(7, [{u, 1}, {u, 0}]),
                Op(16, [{u, 4}, {u, 1}]), Op(69, [{y, 0}, nil, {x, 1}]), Op(69, [{a, F}, {x, 1}, {x, 1}]),
                Op(8, [{u, 2}, {u, 1}, {u, 1}])]
       end,
Exports = lists:usort(maps:keys(Functions)) ++ [{module_info, 0}, {module_info, 1}],
Numbered = lists:zip(Exports, lists:seq(0, length(Exports) - 1)),
Code = [[[Op(1, [{u, 2 * I + 1}]), Op(2, [{a, Module}, {a, F}, {u, Arity}]), Op(1, [{u, 2 * I + 2}]),
          Body(F, Arity)]
         || {{F, Arity}, I} <- Numbered], 3],
Number = fun(Name) -> maps:get(Name, Numbers) end,
Imports = [{persistent_term, get, 1}, {erlang, apply, 2}, {erlang, get_module_info, 1},
           {erlang, get_module_info, 2}],
Chunk = fun(Name, Content) ->
            Data = iolist_to_binary(Content),
            [Name, <<(byte_size(Data)):32>>, Data, lists:duplicate(-byte_size(Data) band 3, 0)]
        end,
Chunks = iolist_to_binary([
    Chunk("AtU8", [<<(length(Names)):32>>
                   | [[byte_size(atom_to_binary(N)), atom_to_binary(N)] || N <- Names]]),
    Chunk("Code", [<<16:32, 0:32, 180:32, (2 * length(Exports) + 1):32, (length(Exports)):32>>, Code]),
    Chunk("StrT", []),
    Chunk("ImpT", [<<(length(Imports)):32>>
                   | [<<(Number(M)):32, (Number(F)):32, Arity:32>> || {M, F, Arity} <- Imports]]),
    Chunk("ExpT", [<<(length(Exports)):32>>
                   | [<<(Number(F)):32, Arity:32, (2 * I + 2):32>> || {{F, Arity}, I} <- Numbered]])]),
File = <<"FOR1", (byte_size(Chunks) + 4):32, "BEAM", Chunks/binary>>,
{module, Module} = code:load_binary(Module, Path, File), Module
"""


async def load(beam: Evaluates, path: Path) -> None:
    """Load an Erlang source file into the node, to be interpreted there.

    Raises:
        BeamError: the file does not parse.
    """
    await beam.eval_bytes(f"{_INTERPRET},\n{_ASSEMBLE}", Source=binary(str(path)))
