import com.ericsson.otp.erlang.*;

/** The passive roles of pyglyn_bench.erl on jinterface: a server, sinks and an echo. Arguments: name, cookie. */
public final class BenchPeer {
    private interface Role {
        void run(OtpMbox box) throws Exception;
    }

    private static void start(OtpNode node, String name, Role role) {
        OtpMbox box = node.createMbox(name);
        Thread thread = new Thread(() -> {
            try {
                while (true) {
                    role.run(box);
                }
            } catch (Exception error) {
                System.err.println(name + ": " + error);
                System.exit(1);
            }
        });
        thread.start();
    }

    private static void sink(OtpMbox box) throws Exception {
        OtpErlangTuple start = (OtpErlangTuple) box.receive();
        long count = ((OtpErlangLong) start.elementAt(2)).longValue();
        for (long number = 0; number < count; number++) {
            box.receive();
        }
        box.send((OtpErlangPid) start.elementAt(1), new OtpErlangAtom("done"));
    }

    private static void echo(OtpMbox box) throws Exception {
        box.send((OtpErlangPid) box.receive(), box.self());
    }

    private static void serve(OtpMbox box) throws Exception {
        OtpErlangTuple request = (OtpErlangTuple) box.receive();
        if (request.arity() != 3) {
            return;
        }
        OtpErlangTuple from = (OtpErlangTuple) request.elementAt(1);
        OtpErlangObject[] reply = {from.elementAt(1), request.elementAt(2)};
        box.send((OtpErlangPid) from.elementAt(0), new OtpErlangTuple(reply));
    }

    public static void main(String[] arguments) throws Exception {
        OtpNode node = new OtpNode(arguments[0], arguments[1]);
        start(node, "bench_server", BenchPeer::serve);
        start(node, "bench_echo", BenchPeer::echo);
        start(node, "bench_sink", BenchPeer::sink);
        for (int number = 1; number <= 8; number++) {
            start(node, "bench_sink_" + number, BenchPeer::sink);
        }
        System.out.println("ready");
    }
}
