%% Sends numbered messages to Python processes that may die, and accounts for each of them.
-module(load_sender).

-export([run/4]).

-define(TICK_MS, 10).

%% One sender a name. Returns for each {Sent, Processed, Lost, Downs, OutOfOrder}: Lost counts only what was
%% under way to a process whose monitor fired.
run(Node, Names, Rate, Ms) ->
    Self = self(),
    Each = Rate div length(Names),
    Pids = [spawn_link(fun() -> Self ! {self(), sender(Node, Name, Each, Ms)} end) || Name <- Names],
    [receive {Pid, Result} -> Result end || Pid <- Pids].

sender(Node, Name, Rate, Ms) ->
    Start = erlang:monotonic_time(millisecond),
    loop(connect(#{node => Node, name => Name, rate => Rate, start => Start, stop => Start + Ms,
                   total => 0, processed => 0, lost => 0, downs => 0, order => 0})).

%% Find the process of a name, monitor it, and number its messages from 1.
connect(#{node := Node, name := Name} = S) ->
    case rpc:call(Node, erlang, whereis, [Name]) of
        Pid when is_pid(Pid) ->
            S#{pid => Pid, ref => erlang:monitor(process, Pid), sent => 0, acked => 0};
        _ ->
            timer:sleep(1),
            connect(S)
    end.

loop(#{start := Start, stop := Stop, rate := Rate, total := Total} = S) ->
    case erlang:monotonic_time(millisecond) of
        Now when Now >= Stop -> finish(S);
        Now -> loop(wait(send(S, (Now - Start) * Rate div 1000 - Total), ?TICK_MS))
    end.

send(S, Count) when Count =< 0 -> S;
send(#{pid := Pid, sent := Sent, total := Total} = S, Count) ->
    Pid ! {n, self(), Sent + 1},
    send(S#{sent := Sent + 1, total := Total + 1}, Count - 1).

wait(#{pid := Pid, ref := Ref} = S, Ms) ->
    receive
        {acked, Pid, Number, Wrong} -> wait(acked(S, Number, Wrong), 0);
        {'DOWN', Ref, process, Pid, _} -> connect(down(S))
    after Ms -> S
    end.

acked(#{acked := Acked, processed := Processed, order := Order} = S, Number, Wrong) ->
    S#{acked := Number, processed := Processed + Number - Acked, order := Order + Wrong}.

%% Acknowledgements come before the end of who sent them: what is not acknowledged now is lost.
down(#{sent := Sent, acked := Acked, lost := Lost, downs := Downs} = S) ->
    S#{lost := Lost + Sent - Acked, downs := Downs + 1, sent := 0, acked := 0}.

%% Ask for a last acknowledgement; one that dies before it has answered has told us so.
finish(#{pid := Pid, ref := Ref} = S) ->
    Pid ! {sync, self()},
    receive
        {synced, Pid, Number, Wrong} -> result(acked(S, Number, Wrong));
        {acked, Pid, Number, Wrong} -> finish_wait(acked(S, Number, Wrong));
        {'DOWN', Ref, process, Pid, _} -> result(down(S))
    after 30000 -> result(S)
    end.

finish_wait(#{pid := Pid, ref := Ref} = S) ->
    receive
        {synced, Pid, Number, Wrong} -> result(acked(S, Number, Wrong));
        {acked, Pid, Number, Wrong} -> finish_wait(acked(S, Number, Wrong));
        {'DOWN', Ref, process, Pid, _} -> result(down(S))
    after 30000 -> result(S)
    end.

result(#{total := Total, processed := Processed, lost := Lost, downs := Downs, order := Order}) ->
    {Total, Processed, Lost, Downs, Order}.
