%% Decides conflicts of syn's registry: the process with the least metadata stays.
-module(keep_least).

-export([resolve_registry_conflict/4]).

resolve_registry_conflict(_Scope, _Name, {Pid1, Meta1, _}, {_, Meta2, _}) when Meta1 < Meta2 -> Pid1;
resolve_registry_conflict(_Scope, _Name, _, {Pid2, _, _}) -> Pid2.
