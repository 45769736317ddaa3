%% Records what a scope process receives, and what it (or its sending process) sends to others, in order.
-module(trace_scope).

-export([start/1, stop/1]).

start(Name) ->
    Scope = whereis(Name),
    {links, Links} = process_info(Scope, links),
    Senders = [P || P <- Links, is_sender(process_info(P, initial_call))],
    Tracer = spawn(fun() -> collect(Scope, Senders, []) end),
    erlang:trace(Scope, true, [send, 'receive', monotonic_timestamp, {tracer, Tracer}]),
    [erlang:trace(P, true, [send, monotonic_timestamp, {tracer, Tracer}]) || P <- Senders],
    {Scope, Tracer}.

stop(Tracer) ->
    Tracer ! {stop, self()},
    receive {Tracer, Records} -> Records end.

is_sender({initial_call, {syn_gen_scope, _, 0}}) -> true;
is_sender(_) -> false.

collect(Scope, Senders, Records) ->
    receive
        {trace_ts, _, 'receive', Message, At} ->
            collect(Scope, Senders, [{in, undefined, Message, At} | Records]);
        {trace_ts, _, send, Message, To, At} ->
            case lists:member(To, [Scope | Senders]) of
                true -> collect(Scope, Senders, Records);
                false -> collect(Scope, Senders, [{out, To, Message, At} | Records])
            end;
        {trace_ts, _, _, _, _, _} ->
            collect(Scope, Senders, Records);
        {stop, From} ->
            From ! {self(), [{D, term_to_binary(To), term_to_binary(M), erlang:convert_time_unit(At, native, microsecond)}
                             || {D, To, M, At} <- lists:reverse(Records)]}
    end.
