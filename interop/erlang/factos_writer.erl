%% A service on the BEAM that decides over a log of facts in PostgreSQL, by the statements of Gleam's factos 1.0:
%% read what matches, decide, then, with the table locked, look whether something that matches has come, and insert.
%% It speaks PostgreSQL's protocol itself (simple queries over a Unix socket), so nothing has to be installed.
%%
%% The domain is that of tests/eventsourcing/stores/test_facts.py: a course has places, a student three courses at most.
-module(factos_writer).
-export([run/4]).

%% Make decisions one after the other; each is {Student, Course}. Returns how they came out, and how often something had
%% come in between.
run(Socket, Startup, Stream, Decisions) ->
    Connection = connect(Socket, Startup),
    Counts = lists:foldl(
        fun({Student, Course}, Counts) -> decide(Connection, Stream, Student, Course, Counts) end,
        #{ok => 0, full => 0, too_many => 0, already => 0, conflicts => 0},
        Decisions
    ),
    gen_tcp:close(Connection),
    Counts.

decide(Connection, Stream, Student, Course, Counts) ->
    {Query, Mine} = query(Student, Course),
    Facts = ask(Connection, ["SELECT position, type, tags, convert_from(data, 'UTF8') FROM factos_events WHERE ", Query, " ORDER BY position"]),
    After = lists:max([0 | [binary_to_integer(Position) || [Position | _] <- Facts]]),
    Subscribed = [binary:split(Tags, <<"\n">>, [global]) || [_, <<"student-subscribed">>, Tags, _] <- Facts],
    Of = fun(Tag) -> length([Tags || Tags <- Subscribed, lists:member(Tag, Tags)]) end,
    Already = lists:any(fun(Tags) -> Mine -- Tags =:= [] end, Subscribed),
    [CourseTag, StudentTag] = Mine,
    Decided =
        case {Of(CourseTag) >= places(Facts), Of(StudentTag) >= 3, Already} of
            {true, _, _} -> full;
            {_, true, _} -> too_many;
            {_, _, true} -> already;
            _ -> ok
        end,
    case Decided =/= ok orelse append(Connection, Stream, Student, Course, Query, After) of
        true -> maps:update_with(Decided, fun(N) -> N + 1 end, Counts);
        false -> decide(Connection, Stream, Student, Course, maps:update_with(conflicts, fun(N) -> N + 1 end, Counts))
    end.

query(Student, Course) ->
    CourseTag = <<"course:", Course/binary>>,
    StudentTag = <<"student:", Student/binary>>,
    Query = ["(string_to_array(tags, E'\\n') @> ARRAY['", CourseTag, "'] OR (type = 'student-subscribed' AND ",
             "string_to_array(tags, E'\\n') @> ARRAY['", StudentTag, "']))"],
    {Query, [CourseTag, StudentTag]}.

places(Facts) ->
    Found = [re:run(Data, "\"places\": ?([0-9]+)", [{capture, [1], binary}]) || [_, <<"course-defined">>, _, Data] <- Facts],
    lists:max([0 | [binary_to_integer(Places) || {match, [Places]} <- Found]]).

append(Connection, Stream, Student, Course, Query, After) ->
    ask(Connection, "BEGIN ISOLATION LEVEL READ COMMITTED"),
    ask(Connection, "LOCK TABLE factos_events IN EXCLUSIVE MODE"),
    case ask(Connection, ["SELECT 1 FROM factos_events WHERE ", Query, " AND position > ", integer_to_list(After), " LIMIT 1"]) of
        [] ->
            ask(Connection, [
                "INSERT INTO factos_events (id, stream, revision, type, version, tags, metadata, data) SELECT ",
                "gen_random_uuid()::text, '", Stream, "', coalesce(max(revision), -1) + 1, 'student-subscribed', 1, ",
                "E'course:", Course, "\\nstudent:", Student, "', 'by=erlang', convert_to('{\"event-type\":\"student-subscribed\",",
                "\"student\":\"", Student, "\",\"course\":\"", Course, "\"}', 'UTF8') FROM factos_events WHERE stream = '", Stream, "'"
            ]),
            ask(Connection, "COMMIT"),
            true;
        [_] ->
            ask(Connection, "ROLLBACK"),
            false
    end.

%% --- PostgreSQL's protocol, version 3 ----------------------------------------------------------------------

connect(Socket, Startup) ->
    {ok, Connection} = gen_tcp:connect({local, Socket}, 0, [binary, {active, false}]),
    Pairs = [[Key, 0, Value, 0] || {Key, Value} <- Startup],
    Body = iolist_to_binary([<<196608:32>>, Pairs, 0]),
    ok = gen_tcp:send(Connection, [<<(byte_size(Body) + 4):32>>, Body]),
    [] = answer(Connection, []),
    Connection.

ask(Connection, Statement) ->
    Body = iolist_to_binary([Statement, 0]),
    ok = gen_tcp:send(Connection, [$Q, <<(byte_size(Body) + 4):32>>, Body]),
    answer(Connection, []).

answer(Connection, Rows) ->
    {ok, <<Kind, Length:32>>} = gen_tcp:recv(Connection, 5),
    Body =
        case Length of
            4 -> <<>>;
            _ -> {ok, Found} = gen_tcp:recv(Connection, Length - 4), Found
        end,
    case {Kind, Body} of
        {$Z, _} -> lists:reverse(Rows);
        {$D, <<_:16, Fields/binary>>} -> answer(Connection, [fields(Fields) | Rows]);
        {$E, _} -> error({postgres, Body});
        {$R, <<Other:32, _/binary>>} when Other =/= 0 -> error({authentication, Other});
        _ -> answer(Connection, Rows)
    end.

fields(<<>>) -> [];
fields(<<Length:32/signed, Rest/binary>>) when Length < 0 -> [null | fields(Rest)];
fields(<<Length:32, Value:Length/binary, Rest/binary>>) -> [Value | fields(Rest)].
