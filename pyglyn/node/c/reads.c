/* What was read is taken: methods of connection.Connection and link.LinkProtocol, where an inlet begins with it. */

#include "hot.h"

enum { READ_SIZE = 16 * 1024, A_TURN = 64 };    /* as in transport.py and connection.py */

static int add(PyObject *object, Py_ssize_t at, Py_ssize_t more)
{
    PyObject *sum = sum_of(object, at, more);
    if (sum == NULL) return -1;
    set_field(object, at, sum);
    Py_DECREF(sum);
    return 0;
}

/* Channel.count */
static int count_received(Hot *hot, PyObject *channel, Py_ssize_t frames)
{
    PyObject *ticker = *field_at(channel, hot->channel_ticker);
    if (ticker == NULL || Py_TYPE(ticker) != hot->ticker) {
        PyErr_SetString(PyExc_TypeError, "a channel without its ticker");
        return -1;
    }
    return add(channel, hot->channel_packets, frames) < 0 ? -1 : add(ticker, hot->ticker_received, 1);
}

/* Have the inlet take what was read, and Python the rest, in one turn: 0, or -1 */
static int take_read(
    Hot *hot, PyObject *port, PyObject *inlet, PyObject *buffer, PyObject *turn, PyObject *channel, Py_ssize_t size,
    Py_ssize_t most)
{
    int began = begin_turn(turn);
    if (began < 0) return -1;
    Py_ssize_t at = take_frames(inlet, buffer, size, most);
    int failed = 0;
    if (at < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *error = take_error(), *args[] = {port, error};
        PyObject *said = PyObject_VectorcallMethod(hot->names[SAY_NOT_HANDLED], args, 2, NULL);
        Py_DECREF(error);
        failed = said == NULL ? -1 : 0;
        Py_XDECREF(said);
        at = taken_bytes(inlet);
    }
    else if (at < 0) {
        failed = -1;
    }
    if (!failed && channel != NULL) failed = count_received(hot, channel, frames_taken(inlet));
    if (!failed && at < size) {
        PyObject *where[] = {port, PyLong_FromSsize_t(at), PyLong_FromSsize_t(size)};
        PyObject *done = where[1] == NULL || where[2] == NULL
            ? NULL : PyObject_VectorcallMethod(hot->names[RECEIVE_REST], where, 3, NULL);
        Py_XDECREF(where[1]);
        Py_XDECREF(where[2]);
        Py_XDECREF(done);
        failed = done == NULL ? -1 : 0;
    }
    if (!began) return failed;
    PyObject *error = failed ? take_error() : NULL;
    failed = end_turn(turn);
    if (error != NULL) {
        if (failed) Py_XDECREF(take_error());
        put_error_back(error);
        failed = -1;
    }
    return failed;
}

/* The length of a memoryview in a slot, -1 where there is none. */
static Py_ssize_t room_in(PyObject *object, Py_ssize_t at)
{
    PyObject *buffer = *field_at(object, at);
    return buffer == NULL || !PyMemoryView_Check(buffer) ? -1 : PyMemoryView_GET_BUFFER(buffer)->len;
}

/* Connection.get_buffer */
PyObject *connection_get_buffer(PyObject *connection, PyObject *hint)
{
    Hot *hot = the_hot();
    PyObject *buffer = *field_at(connection, hot->connection_buffer);
    if (buffer != NULL) return Py_NewRef(buffer);
    PyObject *args[] = {connection, hint};
    return PyObject_Vectorcall(hot->of_python[GET_BUFFER], args, 2, NULL);
}

/* Connection.buffer_updated, where the next read is to be no larger and no smaller than this one */
PyObject *connection_buffer_updated(PyObject *connection, PyObject *count)
{
    Hot *hot = the_hot();
    Py_ssize_t size = PyLong_AsSsize_t(count), room = room_in(connection, hot->connection_buffer);
    if (size == -1 && PyErr_Occurred()) return NULL;
    PyObject *inlet = *field_at(connection, hot->connection_inlet);
    PyObject *channel = *field_at(connection, hot->connection_channel);
    PyObject *turn = *field_at(connection, hot->connection_turn);
    if (inlet == NULL || Py_TYPE(inlet) != hot->inlet || channel == NULL || Py_TYPE(channel) != hot->channel ||
        turn == NULL || *field_at(connection, hot->connection_in_order) != Py_True || size < 0 || size >= room ||
        room > READ_SIZE) {
        PyObject *args[] = {connection, count};
        return PyObject_Vectorcall(hot->of_python[BUFFER_UPDATED], args, 2, NULL);
    }
    PyObject *buffer = Py_NewRef(*field_at(connection, hot->connection_buffer));
    Py_INCREF(inlet);
    Py_INCREF(channel);
    Py_INCREF(turn);
    int failed = add(connection, hot->connection_received_bytes, size);
    if (!failed) failed = take_read(hot, connection, inlet, buffer, turn, channel, size, A_TURN - 1);
    Py_DECREF(buffer);
    Py_DECREF(inlet);
    Py_DECREF(channel);
    Py_DECREF(turn);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* LinkProtocol.get_buffer */
PyObject *link_get_buffer(PyObject *link, PyObject *hint)
{
    Hot *hot = the_hot();
    PyObject *reader = *field_at(link, hot->link_reader), *buffer = *field_at(link, hot->link_buffer);
    if (reader != NULL && Py_TYPE(reader) == hot->reader && *field_at(reader, hot->reader_body) == Py_None &&
        buffer != NULL) {
        set_field(link, hot->link_into_frame, Py_False);
        return Py_NewRef(buffer);
    }
    PyObject *args[] = {link, hint};
    return PyObject_Vectorcall(hot->of_python[GET_BUFFER_OF_LINK], args, 2, NULL);
}

/* LinkProtocol.buffer_updated, of a read that begins with a frame */
PyObject *link_buffer_updated(PyObject *link, PyObject *count)
{
    Hot *hot = the_hot();
    Py_ssize_t size = PyLong_AsSsize_t(count);
    if (size == -1 && PyErr_Occurred()) return NULL;
    PyObject *inlet = *field_at(link, hot->link_inlet), *reader = *field_at(link, hot->link_reader);
    PyObject *buffer = *field_at(link, hot->link_buffer), *turn = *field_at(link, hot->link_turn);
    PyObject *rest = reader == NULL || Py_TYPE(reader) != hot->reader ? NULL : *field_at(reader, hot->reader_rest);
    if (inlet == NULL || Py_TYPE(inlet) != hot->inlet || buffer == NULL || turn == NULL || rest == NULL || size < 0 ||
        !PyByteArray_CheckExact(rest) || PyByteArray_GET_SIZE(rest) > 0 ||
        *field_at(link, hot->link_into_frame) != Py_False || *field_at(reader, hot->reader_body) != Py_None) {
        PyObject *args[] = {link, count};
        return PyObject_Vectorcall(hot->of_python[BUFFER_OF_LINK_UPDATED], args, 2, NULL);
    }
    Py_INCREF(inlet);
    Py_INCREF(buffer);
    Py_INCREF(turn);
    int failed = take_read(hot, link, inlet, buffer, turn, NULL, size, PY_SSIZE_T_MAX);
    Py_DECREF(inlet);
    Py_DECREF(buffer);
    Py_DECREF(turn);
    if (failed) return NULL;
    Py_RETURN_NONE;
}
