%% What a Gleam program does to read an event that came from elsewhere, for comparison in the benchmarks:
%% decoders after gleam/dynamic/decode, each a fun that gives a value and a list of errors.
-module(pyglyn_bench_gleam).
-export([decodes/2, builds/1]).

%% The microseconds that decoding one term Count times takes.
decodes(Count, Term) ->
    Decoder = message(),
    {[], _} = swap(Decoder(Term)),
    {Micros, ok} = timer:tc(fun() -> repeat(Count, fun() -> Decoder(Term) end) end),
    Micros.

%% The microseconds that making the message Count times out of its parts takes.
builds(Count) ->
    {Micros, ok} = timer:tc(fun() -> repeat(Count, fun() -> build(<<"order_001">>, <<"laptop">>, 20) end) end),
    Micros.

repeat(0, _) -> ok;
repeat(Count, Fun) -> Fun(), repeat(Count - 1, Fun).

swap({Value, Errors}) -> {Errors, Value}.

build(Id, Product, Price) ->
    Item = {item, {product, Product, <<"Gaming Laptop">>, Price}, 1},
    Event = {order_created, Id, [Item], Price},
    {process_events, Id, [{memory_store_event_envelop, Id, 1, Event, []}]}.

message() -> record(process_events, [fun string/1, list(envelope())]).
envelope() -> record(memory_store_event_envelop, [fun string/1, fun int/1, event(), list(pair())]).
event() -> record(order_created, [fun string/1, list(item()), fun int/1]).
item() -> record(item, [product(), fun int/1]).
product() -> record(product, [fun string/1, fun string/1, fun int/1]).
pair() -> fun({K, V}) -> {{K, V}, element(2, string(K)) ++ element(2, string(V))}; (_) -> {nil, [pair]} end.

record(Tag, Fields) ->
    fun(Term) when is_tuple(Term), element(1, Term) =:= Tag, tuple_size(Term) =:= length(Fields) + 1 ->
            fields(Fields, 2, Term, [Tag], []);
       (_) -> {nil, [{decode_error, Tag, []}]}
    end.

fields([], _, _, Values, Errors) -> {list_to_tuple(lists:reverse(Values)), Errors};
fields([Field | Fields], At, Term, Values, Errors) ->
    {Value, New} = Field(element(At, Term)),
    fields(Fields, At + 1, Term, [Value | Values], New ++ Errors).

list(Inner) ->
    fun(Term) when is_list(Term) -> elements(Inner, Term, []);
       (_) -> {[], [{decode_error, list, []}]}
    end.

elements(_, [], Values) -> {lists:reverse(Values), []};
elements(Inner, [Element | Elements], Values) ->
    case Inner(Element) of
        {Value, []} -> elements(Inner, Elements, [Value | Values]);
        {_, Errors} -> {[], Errors}
    end.

string(Term) when is_binary(Term) ->
    case unicode:characters_to_list(Term) of
        List when is_list(List) -> {Term, []};
        _ -> {<<>>, [{decode_error, string, []}]}
    end;
string(_) -> {<<>>, [{decode_error, string, []}]}.

int(Term) when is_integer(Term) -> {Term, []};
int(_) -> {0, [{decode_error, int, []}]}.
