"""The driver of a real syn does what the group tests take for granted."""

from __future__ import annotations

from pyglyn.etf import Atom
from pyglyn.testing import Beam, eventually
from tests.peers import SynBeams


async def test_members_remember_what_is_published_to_their_group(syn_beams: SynBeams) -> None:
    first = await syn_beams.start()
    second = await syn_beams.start()
    assert await first.eval("net_adm:ping(N)", N=Atom(second.name)) == Atom("pong")
    pid = await second.eval('syn_driver:join(example, <<"g">>, meta)')
    await eventually(lambda: first.eval('syn:members(example, <<"g">>) =:= [{P, meta}]', P=pid))
    assert await first.eval('syn:publish(example, <<"g">>, {hello, 1})') == (Atom("ok"), 1)
    assert await second.eval("syn_driver:wait(P, 1, 5000)", P=pid) == [(Atom("hello"), 1)]
    assert await second.eval("syn_driver:received(P)", P=pid) == [(Atom("hello"), 1)]


async def test_the_callbacks_of_syn_are_logged_with_their_reasons(syn_beam: Beam) -> None:
    pid = await syn_beam.eval('syn_driver:register(example, <<"name">>, 7)')
    await syn_beam.eval("syn_driver:crash(P, oops)", P=pid)
    gone = (Atom("unregistered"), Atom("example"), b"name", pid, 7, Atom("oops"))
    await eventually(lambda: syn_beam.eval("lists:member(Call, syn_driver:callbacks())", Call=gone))
    assert (await syn_beam.eval("syn_driver:callbacks()"))[0][0] == Atom("registered")


async def test_a_fun_runs_inside_a_member(syn_beam: Beam) -> None:
    assert await syn_beam.eval("P = syn_driver:member(), P =:= syn_driver:in(P, fun() -> self() end)") is True
