"""Python services inside Erlang, Gleam and Elixir clusters."""

from pyglyn._version import __version__

__all__ = ["__version__"]
