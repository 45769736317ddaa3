%% The BEAM side of the benchmarks. A peer runs the same roles that the Python side runs, so that both are measured alike.
%%
%% Roles: a server is anything that answers gen_server calls with the request; a sink gets {start, From, Count}, then
%% Count messages of any kind, and sends From the atom done; an echo answers a pid with any message; a flooder gets
%% {flood, From, Sink, Count, Message}, sends them, and then From the microseconds until the sink has got them.
-module(pyglyn_bench).
-behaviour(gen_server).

-export([start_server/1, start_sink/1, start_echo/1, start_flooder/1, calls/2, flood/3]).
-export([call_times/2, echo_times/2, streams/3, beside_echo/2, flooded/4, callers/3]).
-export([init/1, handle_call/3, handle_cast/2]).

start_server(Name) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid.

start_sink(Name) ->
    Pid = spawn(fun idle_sink/0),
    register(Name, Pid),
    Pid.

start_echo(Name) ->
    Pid = spawn(fun echo/0),
    register(Name, Pid),
    Pid.

start_flooder(Name) ->
    Pid = spawn(fun flooder/0),
    register(Name, Pid),
    Pid.

flooder() ->
    receive {flood, From, Sink, Count, Message} -> From ! {flooded, flood(Sink, Count, Message)}, flooder() end.

echo() -> receive From when is_pid(From) -> From ! self(), echo() end.

%% Nanoseconds of Count calls, the shortest first.
call_times(Server, Count) ->
    sorted(fun() -> ok = gen_server:call(Server, ok, infinity) end, Count).

%% The same of messages and their answers.
echo_times(Echo, Count) ->
    sorted(fun() -> ask(Echo) end, Count).

sorted(Do, Count) ->
    lists:sort([time(Do) || _ <- lists:seq(1, Count)]).

time(Do) ->
    Begin = erlang:monotonic_time(nanosecond),
    Do(),
    erlang:monotonic_time(nanosecond) - Begin.

ask(Echo) ->
    Echo ! self(),
    receive Pid when is_pid(Pid) -> ok end.

%% Microseconds until each of the sinks has got Count messages, of a sender of its own.
streams(Sinks, Count, Message) ->
    Self = self(),
    {Micros, _} = timer:tc(fun() ->
        Senders = [spawn_link(fun() -> flood(Sink, Count, Message), Self ! {self(), sent} end) || Sink <- Sinks],
        [receive {Sender, sent} -> ok end || Sender <- Senders]
    end),
    Micros.

%% Microseconds that a flooder's flood takes.
flooded(Flooder, Sink, Count, Message) ->
    Flooder ! {flood, self(), Sink, Count, Message},
    receive {flooded, Micros} -> Micros end.

%% What a function gives, and nanoseconds of the echoes meanwhile.
beside_echo(Do, Echo) ->
    Self = self(),
    Asker = spawn_link(fun() -> ask_until_stopped(Self, Echo, []) end),
    Given = Do(),
    Asker ! stop,
    receive {Asker, Times} -> {Given, lists:sort(Times)} end.

ask_until_stopped(Parent, Echo, Times) ->
    receive stop -> Parent ! {self(), Times}
    after 0 -> ask_until_stopped(Parent, Echo, [time(fun() -> ask(Echo) end) | Times])
    end.

%% Microseconds that Count calls take, one after the other.
calls(Server, Count) ->
    {Micros, ok} = timer:tc(fun() -> call_again(Server, Count) end),
    Micros.

call_again(_Server, 0) -> ok;
call_again(Server, Count) ->
    Count = gen_server:call(Server, Count, infinity),
    call_again(Server, Count - 1).

%% Microseconds that so many callers take together for Count calls each.
callers(Server, Callers, Count) ->
    Self = self(),
    {Micros, _} = timer:tc(fun() ->
        Each = [spawn_link(fun() -> calls(Server, Count), Self ! {self(), served} end) || _ <- lists:seq(1, Callers)],
        [receive {Caller, served} -> ok end || Caller <- Each]
    end),
    Micros.

%% Microseconds until a sink has said that it got Count messages.
flood(Sink, Count, Message) ->
    {Micros, done} = timer:tc(fun() ->
        Sink ! {start, self(), Count},
        send_again(Sink, Count, Message),
        receive done -> done end
    end),
    Micros.

send_again(_Sink, 0, _Message) -> ok;
send_again(Sink, Count, Message) ->
    Sink ! Message,
    send_again(Sink, Count - 1, Message).

idle_sink() ->
    receive {start, From, Count} -> count(Count), From ! done, idle_sink() end.

count(0) -> ok;
count(Count) -> receive _ -> count(Count - 1) end.

init([]) -> {ok, none}.

handle_call(Request, _From, State) -> {reply, Request, State}.

handle_cast(_Request, State) -> {noreply, State}.
