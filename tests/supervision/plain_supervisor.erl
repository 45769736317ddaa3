%% A supervisor whose flags and children are what it is started with.
-module(plain_supervisor).
-behaviour(supervisor).

-export([start/2, init/1]).

%% Not linked to the caller, whose process ends with the evaluation.
start(Flags, Children) ->
    {ok, Sup} = supervisor:start_link(?MODULE, {Flags, Children}),
    unlink(Sup),
    Sup.

init(FlagsAndChildren) -> {ok, FlagsAndChildren}.
