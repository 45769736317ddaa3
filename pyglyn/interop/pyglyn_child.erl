%% A process of a pyglyn node as the child of an Erlang supervisor. Copy this module into your application.
%%
%%     init([]) ->
%%         Server = {workers, 'inventory@localhost'},            % a supervisor on the Python node
%%         {ok, {#{strategy => one_for_one},
%%               [pyglyn_child:spec(stock, Server, {shop, stock, [#{<<"laptop">> => 10}]})]}}.
%%
%% {Module, Function, Args} names what the Python node exported with @export_child. It is started under that
%% Python supervisor, as a temporary child in an OS process of its own: the Erlang supervisor alone decides about
%% restarts. What the Erlang supervisor has for a child is a small Erlang process that stands for it:
%%
%%   - it ends when the Python process ends, with the same reason: {signal, 9}, {exit_status, 3}, normal, ...;
%%     noconnection when the node is lost;
%%   - when it is stopped, or killed, the Python supervisor stops the Python process, with its own shutdown time,
%%     and kills its OS process if need be;
%%   - messages to it, calls included, are passed on to the Python process.
%%
%% supervisor:start_child/2 returns {ok, Pid, PythonPid}; pyglyn_child:pid(Pid) returns the PythonPid too.
%%
%% In Gleam (gleam_otp 1.x), as a child of a static or a factory supervisor:
%%
%%     @external(erlang, "pyglyn_child", "gleam_start")
%%     fn start_python(
%%       server: #(Atom, Atom),                                // #(workers, inventory@localhost)
%%       child: #(Atom, Atom, List(argument)),                 // #(shop, stock, [items])
%%       options: Dict(Atom, option),                          // see options() below
%%     ) -> Result(actor.Started(Pid), actor.StartError)
%%
%%     supervision.worker(fn() { start_python(server, child, dict.new()) })
%%     factory_supervisor.worker_child(fn(items) { start_python(server, #(shop, stock, [items]), dict.new()) })
%%
%% While the node cannot be reached, a start waits for it, and fails with {error, {nodedown, Node}} when
%% the connect timeout (5 seconds) is over. Each failed restart counts: choose intensity and period so that the
%% supervisor outlives a restart of the Python node.
-module(pyglyn_child).

-export([spec/3, spec/4, start_link/3, pid/1, pid/2, gleam_start/3]).
-export([init/4, guard/3]).

-define(RETRY_MS, 100).

-type server() :: {Name :: atom(), node()}.
-type options() :: #{restart => supervisor:restart(), significant => boolean(), shutdown => timeout() | brutal_kill,
                     connect_timeout => non_neg_integer(), start_timeout => timeout(),
                     memory_limit => pos_integer(), heartbeat => pos_integer(), isolation => process | task}.
-export_type([server/0, options/0]).

%% A child specification for an Erlang supervisor.
-spec spec(supervisor:child_id(), server(), mfa_and_args()) -> supervisor:child_spec().
-type mfa_and_args() :: {module(), atom(), [term()]}.
spec(Id, Server, MFA) -> spec(Id, Server, MFA, #{}).

%% The same with options. shutdown (default 5000) is the time the Python process has; the Erlang supervisor waits
%% two seconds longer, so that the Python side is the one to kill it. start_timeout, memory_limit (bytes),
%% heartbeat (ms) and isolation are options of the Python child.
-spec spec(supervisor:child_id(), server(), mfa_and_args(), options()) -> supervisor:child_spec().
spec(Id, {_, _} = Server, {_, _, Args} = MFA, Options) when is_list(Args) ->
    Own = maps:with([restart, significant], Options),
    Shutdown = case maps:get(shutdown, Options, 5000) of
        Ms when is_integer(Ms) -> Ms + 2000;
        Word -> Word
    end,
    Own#{id => Id, start => {?MODULE, start_link, [Server, MFA, Options#{id => Id}]}, shutdown => Shutdown,
         modules => [?MODULE]}.

%% Called by the supervisor.
-spec start_link(server(), mfa_and_args(), map()) -> {ok, pid(), pid()} | ignore | {error, term()}.
start_link(Server, MFA, Options) ->
    proc_lib:start_link(?MODULE, init, [self(), Server, MFA, Options]).

%% The same for Gleam: the result is an actor.StartResult(Pid), whose data is the Python process.
-spec gleam_start(server(), mfa_and_args(), options()) ->
    {ok, {started, pid(), pid()}} | {error, {init_failed, binary()}}.
gleam_start(Server, MFA, Options) ->
    case start_link(Server, MFA, Options#{id => maps:get(id, Options, MFA)}) of
        {ok, Pid, PythonPid} -> {ok, {started, Pid, PythonPid}};
        ignore -> {error, {init_failed, <<"it chose not to run">>}};
        {error, Reason} -> {error, {init_failed, unicode:characters_to_binary(io_lib:format("~0tp", [Reason]))}}
    end.

%% The Python process that a child of an Erlang supervisor stands for; exits when the child does not say so
%% within 5 seconds, or Timeout milliseconds, as gen_server:call does.
-spec pid(pid()) -> pid().
pid(Child) -> pid(Child, 5000).

-spec pid(pid(), timeout()) -> pid().
pid(Child, Timeout) ->
    Ref = monitor(process, Child, [{alias, demonitor}]),
    Child ! {?MODULE, Ref, Ref},
    receive
        {Ref, Pid} -> demonitor(Ref, [flush]), Pid;
        {'DOWN', Ref, _, _, Reason} -> exit({Reason, {?MODULE, pid, [Child, Timeout]}})
    after Timeout ->
        demonitor(Ref, [flush]),
        receive {Ref, Pid} -> Pid after 0 -> exit({timeout, {?MODULE, pid, [Child, Timeout]}}) end
    end.

init(Parent, {_, Node} = Server, MFA, Options) ->
    process_flag(trap_exit, true),
    Deadline = erlang:monotonic_time(millisecond) + maps:get(connect_timeout, Options, 5000),
    %% Before anything is started there is somebody to stop it, whatever happens to this process.
    Id = {self(), maps:get(id, Options), make_ref()},
    Guard = spawn(?MODULE, guard, [self(), Server, Id]),
    case connect(Node, Deadline) andalso start_child(Server, python_spec(Id, MFA, Options)) of
        false -> fail(Guard, {nodedown, Node});
        {ok, undefined} -> Guard ! stand_down, proc_lib:init_ack(Parent, ignore), exit(normal);
        {ok, Pid} when is_pid(Pid) ->
            link(Pid),
            proc_lib:init_ack(Parent, {ok, self(), Pid}),
            loop(Parent, Pid, Guard);
        {error, {Reason, Record}} when element(1, Record) =:= child -> fail(Guard, Reason);
        {error, Reason} -> fail(Guard, Reason)
    end.

fail(Guard, Reason) ->
    Guard ! stand_down,
    proc_lib:init_ack({error, Reason}),
    exit(normal).

connect(Node, Deadline) ->
    case net_kernel:connect_node(Node) of
        true -> true;
        _ ->
            case erlang:monotonic_time(millisecond) >= Deadline of
                true -> false;
                false -> timer:sleep(?RETRY_MS), connect(Node, Deadline)
            end
    end.

python_spec(Id, MFA, Options) ->
    Kept = maps:with([shutdown, start_timeout, memory_limit, heartbeat, isolation], Options),
    Kept#{id => Id, start => MFA, restart => temporary}.

%% One that is still there from before a lost connection is stopped first: who stood for it is gone. The same id
%% alone says nothing, other supervisors and factories may have it too.
start_child(Server, #{id := {_, Id, _}} = Spec) ->
    try
        Old = [OldId || {{Owner, I, _} = OldId, _, _, _} <- supervisor:which_children(Server),
                        I =:= Id, is_gone(Owner)],
        lists:foreach(fun(OldId) -> supervisor:terminate_child(Server, OldId) end, Old),
        supervisor:start_child(Server, Spec)
    catch
        exit:{Reason, _} -> {error, Reason}
    end.

is_gone(Owner) when is_pid(Owner), node(Owner) =:= node() ->
    try not is_process_alive(Owner)
    catch error:badarg -> true  % of an earlier run of this node
    end;
is_gone(_) ->
    false.

loop(Parent, Pid, Guard) ->
    receive
        {'EXIT', Pid, noconnection} ->
            exit(noconnection);  % it may live: the guard has it stopped, if the node can be reached again
        {'EXIT', Pid, Reason} ->
            Guard ! stand_down,
            exit(Reason);
        {'EXIT', Parent, Reason} ->
            stop(Guard),
            receive {'EXIT', Pid, _} -> ok after 0 -> ok end,
            exit(Reason);
        {?MODULE, From, Ref} ->
            From ! {Ref, Pid},
            loop(Parent, Pid, Guard);
        {'EXIT', _, _} ->
            loop(Parent, Pid, Guard);
        Message ->
            Pid ! Message,
            loop(Parent, Pid, Guard)
    end.

stop(Guard) ->
    Ref = monitor(process, Guard),
    Guard ! stop,
    receive {'DOWN', Ref, _, _, _} -> ok end.

%% Outlives its owner by as long as it takes to have the Python process stopped.
guard(Owner, Server, Id) ->
    Ref = monitor(process, Owner),
    receive
        stand_down -> ok;
        stop -> terminate_child(Server, Id);
        {'DOWN', Ref, _, _, _} -> terminate_child(Server, Id)
    end.

terminate_child(Server, Id) ->
    try supervisor:terminate_child(Server, Id)
    catch exit:_ -> not_reached
    end.
