#!/usr/bin/env escript
%% Opens Observer, has it look at a node, and walks through tabs: observer_tabs.escript NODE COOKIE TAB…
%%
%% Prints "ready TAB" when a tab has had time to fill, and goes on when a line comes on standard input. At the end it
%% prints whether the node has stayed connected and whether Observer still runs.
-include_lib("wx/include/wx.hrl").

main([Node0, Cookie | Tabs]) ->
    Node = list_to_atom(Node0),
    {ok, _} = net_kernel:start([list_to_atom("observer" ++ os:getpid() ++ "@localhost"), shortnames]),
    erlang:set_cookie(list_to_atom(Cookie)),
    pong = net_adm:ping(Node),
    ok = observer:start(),
    timer:sleep(1000),
    State = wx_state(),
    Nodes = element(11, State),
    [Number] = [I || {I, N} <- lists:zip(lists:seq(1, length(Nodes)), Nodes), N =:= Node],
    observer ! #wx{id = 1000 + Number, obj = element(2, State), userData = [],
                   event = #wxCommand{type = command_menu_selected}},
    timer:sleep(1000),
    {dictionary, Dictionary} = process_info(whereis(observer), dictionary),
    wx:set_env(proplists:get_value(wx_env, Dictionary)),
    Titles = [Title || {_, _, Title} <- element(8, State)],
    [show(element(6, State), Titles, Tab) || Tab <- Tabs],
    Looked = element(10, wx_state()),
    io:format("connected ~p observer ~p looks ~p~n",
              [lists:member(Node, nodes(connected)), is_pid(whereis(observer)), Looked =:= Node]),
    halt(0).

show(Notebook, Titles, Tab) ->
    [Index] = [I || {I, T} <- lists:zip(lists:seq(0, length(Titles) - 1), Titles), T =:= Tab],
    wxNotebook:setSelection(Notebook, Index),
    timer:sleep(4000),
    io:format("ready ~s~n", [Tab]),
    _ = io:get_line("").

%% #state{} of observer_wx, below the frame of wx_object.
wx_state() ->
    {status, _, _, [_, _, _, _, Misc]} = sys:get_status(observer),
    hd([S || Item <- lists:flatten([Misc]), S <- states(Item), is_tuple(S), element(1, S) =:= state,
             tuple_size(S) > 10]).

states({data, List}) -> [V || {_, V} <- List];
states(Other) -> [Other].
