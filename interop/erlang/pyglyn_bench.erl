%% The BEAM side of the benchmarks. A peer runs the same roles that the Python side runs, so that both are measured alike.
%%
%% Roles: a server is anything that answers gen_server calls with the request; a sink gets {start, From, Count}, then
%% Count messages of any kind, and sends From the atom done.
-module(pyglyn_bench).
-behaviour(gen_server).

-export([start_server/1, start_sink/1, calls/2, flood/3]).
-export([init/1, handle_call/3, handle_cast/2]).

start_server(Name) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid.

start_sink(Name) ->
    Pid = spawn(fun idle_sink/0),
    register(Name, Pid),
    Pid.

%% Microseconds that Count calls take, one after the other.
calls(Server, Count) ->
    {Micros, ok} = timer:tc(fun() -> call_again(Server, Count) end),
    Micros.

call_again(_Server, 0) -> ok;
call_again(Server, Count) ->
    Count = gen_server:call(Server, Count, infinity),
    call_again(Server, Count - 1).

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
