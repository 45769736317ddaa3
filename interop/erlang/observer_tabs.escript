#!/usr/bin/env escript
%% Opens Observer, has it look at a node, and walks through tabs: observer_tabs.escript NODE COOKIE TAB…
%%
%% Prints "ready TAB" when a tab shows what it got from the node, and goes on when a line comes on standard input. At the
%% end it prints whether the node has stayed connected and whether Observer still runs. The records that it looks into
%% are those of observer 2.14 (OTP 25).
-include_lib("wx/include/wx.hrl").

-define(PAINT_MS, 1500).

main([Node0, Cookie | Tabs]) ->
    Node = list_to_atom(Node0),
    {ok, _} = net_kernel:start([list_to_atom("observer" ++ os:getpid() ++ "@localhost"), shortnames]),
    erlang:set_cookie(list_to_atom(Cookie)),
    pong = net_adm:ping(Node),
    ok = observer:start(),
    until(fun() -> lists:member(Node, element(11, state(observer))) end),
    State = state(observer),
    Nodes = element(11, State),
    [Number] = [I || {I, N} <- lists:zip(lists:seq(1, length(Nodes)), Nodes), N =:= Node],
    observer ! #wx{id = 1000 + Number, obj = element(2, State), userData = [],
                   event = #wxCommand{type = command_menu_selected}},
    until(fun() -> looked_at() =:= Node end),
    {dictionary, Dictionary} = process_info(whereis(observer), dictionary),
    wx:set_env(proplists:get_value(wx_env, Dictionary)),
    Panels = element(8, State),
    [show(Node, element(6, State), Panels, Tab) || Tab <- Tabs],
    io:format("connected ~p observer ~p looks ~p~n",
              [lists:member(Node, nodes(connected)), is_pid(whereis(observer)), looked_at() =:= Node]),
    halt(0).

show(Node, Notebook, Panels, Tab) ->
    [{Index, Panel}] = [{I, wx_object:get_pid(Object)} ||
                           {I, {_, Object, Title}} <- lists:zip(lists:seq(0, length(Panels) - 1), Panels), Title =:= Tab],
    wxNotebook:setSelection(Notebook, Index),
    until(fun() -> element(9, state(observer)) =:= Panel end),
    until(fun() -> is_filled(Tab, Node, state(Panel)) end),
    timer:sleep(?PAINT_MS),
    io:format("ready ~s~n", [Tab]),
    _ = io:get_line("").

looked_at() -> element(10, state(observer)).

%% Whether a tab has what it shows from the node: the last field of processes is who holds the rows, that of charts has
%% how many samples there are, and an application has been drawn when it is a record.
is_filled("Processes", Node, State) ->
    Holder = element(tuple_size(State), State),
    Holder ! {get_row, self(), 0, pid},
    receive {Holder, {ok, Pid}} -> node(Pid) =:= Node; {Holder, _} -> false end;
is_filled("Load Charts", _, State) -> element(1, element(5, State)) > 8;
is_filled("Applications", _, State) -> is_tuple(element(8, State));
is_filled(_, _, _) -> true.

until(Condition) ->
    case Condition() of
        true -> ok;
        false -> timer:sleep(100), until(Condition)
    end.

%% The state of a wx_object.
state(Object) ->
    {status, _, _, [_, _, _, _, Misc]} = sys:get_status(Object, 60000),
    {data, [{"State", State}]} = lists:last(Misc),
    State.
