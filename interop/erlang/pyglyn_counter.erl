%% A gen_server that uses what interpreted modules must get right: records, local funs, loops, callbacks, exits.
-module(pyglyn_counter).
-behaviour(gen_server).

-export([start/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export([doubled/1, count_down/1, caught/1, spawned/1, many/9]).

-record(state, {count = 0 :: integer(), watcher :: pid()}).

start(Watcher) -> gen_server:start({local, ?MODULE}, ?MODULE, {7, Watcher}, []).

init({Count, Watcher}) ->
    process_flag(trap_exit, true),
    {ok, #state{count = Count, watcher = Watcher}}.

handle_call(get, _From, #state{count = Count} = State) -> {reply, Count, State};
handle_call({crash, Reason}, _From, _State) -> exit(Reason);
handle_call(stop, _From, State) -> {stop, normal, stopped, State}.

handle_cast({add, N}, State) -> {noreply, State#state{count = State#state.count + N}}.

handle_info(Message, State) ->
    State#state.watcher ! {heard, Message},
    {noreply, State}.

terminate(Reason, #state{count = Count, watcher = Watcher}) -> Watcher ! {terminated, Reason, Count}.

doubled(Numbers) -> lists:map(fun double/1, Numbers).

double(Number) -> Number * 2.

count_down(0) -> done;
count_down(N) -> count_down(N - 1).

caught(Fun) ->
    try Fun() of
        Value -> {value, Value}
    catch
        Class:Reason -> {Class, Reason}
    end.

spawned(Caller) -> spawn(?MODULE, caught, [fun() -> Caller ! {from, self()} end]).

many(A, B, C, D, E, F, G, H, I) -> [A, B, C, D, E, F, G, H, I].
