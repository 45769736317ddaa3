/* What a message and a call do with the objects of the package, in C: the twin of functions in Python.
 *
 * The definition is in Python: `connection.Connection.receive` and what that calls (inlet.c, onward.c), methods of turns, waiters
 * and mailboxes (turn.c), ways and methods of connections and links (out.c, reads.c). Nothing is kept here but what those would look up anew: all state is in the objects of the package, in
 * the same fields. What is not as it nearly always is, is left to Python, before anything of it was done.
 *
 * Threads, trust and memory: as codec.h has it.
 */

#ifndef PYGLYN_HOT_H
#define PYGLYN_HOT_H

#include "../../etf/c/codec.h"

/* Names of attributes that are looked up. */
enum Name { HANDLING, SOURCE, SIGNALS, PENDING, MAILBOX, TOLD_SOURCE, DEAF, ANSWERS, SOON, WAKE, ON_MONITOR,
            RECEIVE_MESSAGE, SAY, GO_ON, ANEW, LIMITS, FLUSH_NAME, AT_END_NAME, BE_BUSY, WRITE, APPENDLEFT, CLEAR,
            SEND_FRAME_NAME, FLUSH_LINK_NAME, IS_CLOSING, PROTOCOL, BOUNDARY, WATCHERS, OUTGOING, RECEIVE_REST, SAY_NOT_HANDLED, NAME_COUNT };

/* Methods that are put into classes: of turns, then of waiters, of mailboxes, of connections, of links,
 * and again of connections and of links. */
enum Method { BEGIN, END, AT_END, WAKE_METHOD, ADD_DONE_CALLBACK, RESULT, SET_RESULT, INIT, AWAIT, PUT_ENCODED, NEXT,
              NEXT_TO_COME, SEND_FRAME, FLUSH, SEND_FRAME_ON_LINK, FLUSH_LINK,
              GET_BUFFER, BUFFER_UPDATED, GET_BUFFER_OF_LINK, BUFFER_OF_LINK_UPDATED, METHOD_COUNT };

/* What this module uses of the package; see `imports`, `fields` and `names` in hot.c. */
typedef struct {
    PyObject *codec;
    State *etf;
    PyObject *unsettled, *nothing;      /* loop_turn._PENDING, mailbox._NOTHING */
    PyObject *running, *as_it_came, *decode_error, *read_message;
    PyObject *deque, *append, *popleft;
    PyObject *pack_frame;
    PyObject *not_found;                /* (False, None) */
    PyTypeObject *turn, *waiter, *mailbox, *plain, *signals, *pending, *send, *reg_send, *monitor, *demonitor, *inlet, *coming, *awaiting, *way;
    PyTypeObject *connection, *channel, *queue, *ticker, *link, *reader;
    Py_ssize_t turn_settled, turn_open, turn_last, turn_loop;
    Py_ssize_t waiter_result, waiter_error, waiter_callback, waiter_context, waiter_more, waiter_blocking, waiter_turn;
    Py_ssize_t mailbox_fresh, mailbox_sleeps, mailbox_waits, mailbox_waiter, mailbox_remaining, mailbox_held,
        mailbox_streak, mailbox_failure, mailbox_decode, plain_message;
    Py_ssize_t connection_channel, connection_busy, connection_busy_limit, connection_sent, connection_sent_bytes,
        connection_flush_due, connection_writable, connection_turn, connection_closed, connection_transport,
        connection_write_buffer, connection_received_bytes, connection_inlet, connection_in_order, connection_buffer;
    Py_ssize_t channel_closed, channel_queue, channel_ticker, channel_packets, queue_size, queue_ready, queue_streams, ticker_sent, ticker_received;
    Py_ssize_t link_transport, link_busy, link_out, link_out_size, link_high_water, link_flush_due, link_turn, link_writable,
        link_inlet, link_reader, link_buffer, link_into_frame, reader_rest, reader_body;
    Py_ssize_t signals_watchers, pending_futures, send_to, reg_send_name;
    PyObject *names[NAME_COUNT];
    PyObject *of_python[METHOD_COUNT], *of_c[METHOD_COUNT];
} Hot;

/* A field that a class keeps in a slot; NULL where it was deleted. */
static inline PyObject **field_at(PyObject *object, Py_ssize_t at)
{
    return (PyObject **)((char *)object + at);
}

static inline void set_field(PyObject *object, Py_ssize_t at, PyObject *value)
{
    PyObject **field = field_at(object, at);
    Py_XSETREF(*field, Py_NewRef(value));
}

/* Whether two are equal: -1 with an exception. Nearly always they are one. */
static inline int are_equal(PyObject *one, PyObject *other)
{
    return one == other ? 1 : PyObject_RichCompareBool(one, other, Py_EQ);
}

/* deque.append: 0, or -1 */
int append_to(Hot *hot, PyObject *deque, PyObject *item);
/* Waiter.set_result, of one that is not settled: with None it is what Waiter.wake does */
int settle(Hot *hot, PyObject *waiter, PyObject *result);
/* Waiter.wake */
int wake(Hot *hot, PyObject *waiter);
/* Mailbox.put_encoded */
int put_encoded(Hot *hot, PyObject *mailbox, PyObject *message);

/* Call a method without arguments for what it does. */
int call_method(PyObject *object, PyObject *name);
/* The present exception, which is cleared; NULL for none. `put_error_back` takes it. */
PyObject *take_error(void);
void put_error_back(PyObject *error);

extern PyType_Spec inlet_spec, coming_spec, awaiting_spec, way_spec;

/* --- turn.c --- */

int remember_methods(Hot *hot);
void forget_methods(Hot *hot);
PyObject *use(PyObject *module, PyObject *whether);
/* The state of the one interpreter that has this module. */
Hot *the_hot(void);
/* A message as the codec reads it, with these bounds; NULL where Python has to, or with an exception. */
PyObject *read_quickly(Hot *hot, PyObject *message);

/* Turn.begin, Turn.end: -1 on failure */
int begin_turn(PyObject *turn);
int end_turn(PyObject *turn);

/* --- inlet.c --- */

/* Inlet.take: where the next frame begins, or -1 */
Py_ssize_t take_frames(PyObject *inlet, PyObject *read, Py_ssize_t end, Py_ssize_t most);
/* Inlet.frames, Inlet.taken */
Py_ssize_t frames_taken(PyObject *inlet);
Py_ssize_t taken_bytes(PyObject *inlet);

/* --- reads.c --- */

PyObject *connection_get_buffer(PyObject *connection, PyObject *hint);
PyObject *connection_buffer_updated(PyObject *connection, PyObject *count);
PyObject *link_get_buffer(PyObject *link, PyObject *hint);
PyObject *link_buffer_updated(PyObject *link, PyObject *count);

/* --- out.c --- */

PyObject *connection_send_frame(PyObject *connection, PyObject *frame);
PyObject *connection_flush(PyObject *connection, PyObject *ignored);
PyObject *link_send_frame(PyObject *link, PyObject *frame);
PyObject *link_flush(PyObject *link, PyObject *ignored);
/* What a number in a slot and this make, a new reference: made before anything is done, as there may be no memory. */
PyObject *sum_of(PyObject *object, Py_ssize_t at, Py_ssize_t more);
/* Whether `put_on_link` would do it. */
bool is_link_open(Hot *hot, PyObject *link);
/* LinkProtocol.send_frame: 1 if it will be sent, 0 if it is for Python, -1 on failure */
int put_on_link(Hot *hot, PyObject *link, PyObject *frame);
/* ways.way_unread, of bytes: 1 if it will be sent, 0 if it is for Python, -1 on failure */
int pass_on(Hot *hot, PyObject *way, const uint8_t *rest, Py_ssize_t size);
/* Several of them, or one. */
enum { MOST_RESTS = 64 };
typedef struct {
    Py_ssize_t count;
    const uint8_t *at[MOST_RESTS];
    Py_ssize_t sizes[MOST_RESTS];
} Rests;
/* How many will be sent, the first ones, in one piece; -1 on failure. What would make the connection busy is for Python. */
Py_ssize_t pass_many_on(Hot *hot, PyObject *way, const Rests *rests);
/* A frame of both, with its length in front. */
PyObject *frame_from(const char *head, Py_ssize_t head_size, const char *rest, Py_ssize_t size);


#endif
