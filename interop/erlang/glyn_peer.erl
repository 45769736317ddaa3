%% A node of a syn scope and a Glyn 2.0.3 subscriber and publisher on it, without syn: what the wire shows of
%% both, written down again. For tests on machines that have no syn.
-module(glyn_peer).
-export([start/1, subscribe/2, received/1, publish/3, members/2]).

start(Scope) ->
    Caller = self(),
    Pid = spawn(fun() ->
        register(scope_name(Scope), self()),
        Caller ! {started, self()},
        scope(Scope, #{}, #{})
    end),
    receive {started, Pid} -> ok end.

scope_name(Scope) ->
    binary_to_atom(<<"syn_pg_", (atom_to_binary(Scope))/binary>>).

%% Start a process that is a member of a group and keeps what it receives.
subscribe(Scope, Group) ->
    Pid = spawn(fun() -> keep([]) end),
    call(Scope, {join, Group, Pid}),
    Pid.

keep(Messages) ->
    receive
        {received, From} -> From ! {self(), lists:reverse(Messages)}, keep(Messages);
        Message -> keep([Message | Messages])
    end.

received(Subscriber) ->
    Subscriber ! {received, self()},
    receive {Subscriber, Messages} -> Messages after 5000 -> error(timeout) end.

%% As glyn 2.0.3: the message, tagged with the group, to every member.
publish(Scope, Group, Message) ->
    Members = members(Scope, Group),
    [Pid ! {Group, Message} || Pid <- Members],
    length(Members).

members(Scope, Group) ->
    call(Scope, {members, Group}).

call(Scope, Request) ->
    Ref = make_ref(),
    scope_name(Scope) ! {call, self(), Ref, Request},
    receive {Ref, Reply} -> Reply after 5000 -> error(timeout) end.

%% Nodes: node => scope pid. Groups: {Group, Pid} => {Meta, Time}.
scope(Scope, Nodes, Groups) ->
    receive
        {call, From, Ref, {join, Group, Pid}} ->
            Time = erlang:system_time(nanosecond),
            erlang:monitor(process, Pid),
            Sync = {'3.0', sync_join, Group, Pid, undefined, Time, normal},
            [Peer ! Sync || Peer <- maps:values(Nodes)],
            From ! {Ref, ok},
            scope(Scope, Nodes, Groups#{{Group, Pid} => {undefined, Time}});
        {call, From, Ref, {members, Group}} ->
            From ! {Ref, [Pid || {G, Pid} <- maps:keys(Groups), G =:= Group]},
            scope(Scope, Nodes, Groups);
        {'3.0', discover, Peer} ->
            {scope_name(Scope), node(Peer)} ! {'3.0', ack_sync, self(), own(Groups)},
            scope(Scope, known(Peer, Nodes), Groups);
        {'3.0', ack_sync, Peer, Data} ->
            case Nodes of
                #{node(Peer) := Peer} -> ok;
                #{} -> {scope_name(Scope), node(Peer)} ! {'3.0', ack_sync, self(), own(Groups)}
            end,
            Merged = lists:foldl(
                fun({Group, Pid, Meta, Time}, All) -> All#{{Group, Pid} => {Meta, Time}} end, Groups, Data),
            scope(Scope, known(Peer, Nodes), Merged);
        {'3.0', sync_join, Group, Pid, Meta, Time, _Reason} when is_map_key(node(Pid), Nodes) ->
            scope(Scope, Nodes, Groups#{{Group, Pid} => {Meta, Time}});
        {'3.0', sync_leave, Group, Pid, _Meta, _Reason} ->
            scope(Scope, Nodes, maps:remove({Group, Pid}, Groups));
        {'DOWN', _, process, Pid, _} when node(Pid) =:= node() ->
            Left = [Key || {_, P} = Key <- maps:keys(Groups), P =:= Pid],
            [Peer ! {'3.0', sync_leave, Group, Pid, undefined, normal}
             || {Group, _} <- Left, Peer <- maps:values(Nodes)],
            scope(Scope, Nodes, maps:without(Left, Groups));
        {'DOWN', _, process, Peer, _} ->
            Gone = [Key || {_, P} = Key <- maps:keys(Groups), node(P) =:= node(Peer)],
            scope(Scope, maps:remove(node(Peer), Nodes), maps:without(Gone, Groups));
        _ ->
            scope(Scope, Nodes, Groups)
    end.

own(Groups) ->
    [{Group, Pid, Meta, Time} || {{Group, Pid}, {Meta, Time}} <- maps:to_list(Groups), node(Pid) =:= node()].

known(Peer, Nodes) when is_map_key(node(Peer), Nodes) -> Nodes;
known(Peer, Nodes) ->
    erlang:monitor(process, Peer),
    Nodes#{node(Peer) => Peer}.
