/* What is sent goes out: ways of ways.py, and methods of connection.Connection and link.LinkProtocol. */

#include "hot.h"

enum { COPY_BELOW = 16 * 1024 };        /* as in connection.py */

/* A number in a slot: -1 where it is none, or too large. */
static Py_ssize_t number_at(PyObject *object, Py_ssize_t at)
{
    PyObject *number = *field_at(object, at);
    if (number == NULL || !PyLong_CheckExact(number)) return -1;
    Py_ssize_t value = PyLong_AsSsize_t(number);
    if (value == -1) PyErr_Clear();
    return value;
}

PyObject *sum_of(PyObject *object, Py_ssize_t at, Py_ssize_t more)
{
    PyObject *number = *field_at(object, at), *by = PyLong_FromSsize_t(more);
    PyObject *sum = number == NULL || by == NULL ? NULL : PyNumber_Add(number, by);
    Py_XDECREF(by);
    if (number == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_AttributeError, "a number was deleted");
    return sum;
}

/* Write a frame of both there; where it ends. */
static uint8_t *put_frame(uint8_t *to, const char *head, Py_ssize_t head_size, const char *rest, Py_ssize_t size)
{
    uint32_t length = (uint32_t)(head_size + size);
    to[0] = (uint8_t)(length >> 24);
    to[1] = (uint8_t)(length >> 16);
    to[2] = (uint8_t)(length >> 8);
    to[3] = (uint8_t)length;
    memcpy(to + 4, head, (size_t)head_size);
    memcpy(to + 4 + head_size, rest, (size_t)size);
    return to + 4 + head_size + size;
}

PyObject *frame_from(const char *head, Py_ssize_t head_size, const char *rest, Py_ssize_t size)
{
    PyObject *frame = PyBytes_FromStringAndSize(NULL, 4 + head_size + size);
    if (frame != NULL) put_frame((uint8_t *)PyBytes_AS_STRING(frame), head, head_size, rest, size);
    return frame;
}

/* Have it flushed at the end of the turn. */
static int flush_later(Hot *hot, PyObject *port, Py_ssize_t turn_at, enum Name name)
{
    PyObject *flush = PyObject_GetAttr(port, hot->names[name]), *turn = Py_XNewRef(*field_at(port, turn_at));
    PyObject *args[] = {turn, flush};
    PyObject *done = flush == NULL || turn == NULL
        ? NULL : PyObject_VectorcallMethod(hot->names[AT_END_NAME], args, 2, NULL);
    if (turn == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_AttributeError, "_turn");
    Py_XDECREF(turn);
    Py_XDECREF(flush);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The queue of a connection, borrowed, where packets may be added to it at its end; NULL where they may not. */
static PyObject *open_queue(Hot *hot, PyObject *connection, PyObject **channel)
{
    *channel = *field_at(connection, hot->connection_channel);
    if (*field_at(connection, hot->connection_busy) != Py_False || *channel == NULL ||
        Py_TYPE(*channel) != hot->channel || *field_at(*channel, hot->channel_closed) != Py_False) {
        return NULL;
    }
    PyObject *queue = *field_at(*channel, hot->channel_queue);
    if (queue == NULL || Py_TYPE(queue) != hot->queue) return NULL;
    PyObject *streams = *field_at(queue, hot->queue_streams), *ready = *field_at(queue, hot->queue_ready);
    if (streams == NULL || !PyDict_CheckExact(streams) || PyDict_GET_SIZE(streams) > 0 || ready == NULL) return NULL;
    return queue;
}

/* Connection.send_frame, of bytes that are so many frames: 1 if they were queued, 0 if not, -1 on failure */
static int queue_frames(Hot *hot, PyObject *connection, PyObject *frame, Py_ssize_t count)
{
    PyObject *channel, *queue = open_queue(hot, connection, &channel);
    if (queue == NULL || !PyBytes_CheckExact(frame)) return 0;
    Py_ssize_t size = number_at(queue, hot->queue_size), limit = number_at(connection, hot->connection_busy_limit);
    if (size < 0 || limit < 0) return 0;
    PyObject *more = sum_of(queue, hot->queue_size, PyBytes_GET_SIZE(frame));
    PyObject *sent = more == NULL ? NULL : sum_of(connection, hot->connection_sent, count);
    int failed = sent == NULL ? -1 : append_to(hot, *field_at(queue, hot->queue_ready), frame);
    if (!failed) {
        set_field(queue, hot->queue_size, more);
        set_field(connection, hot->connection_sent, sent);
    }
    Py_XDECREF(more);
    Py_XDECREF(sent);
    if (failed) return -1;
    if (*field_at(connection, hot->connection_flush_due) == Py_False &&
        *field_at(connection, hot->connection_writable) == Py_True) {
        if (flush_later(hot, connection, hot->connection_turn, FLUSH_NAME) < 0) return -1;
        set_field(connection, hot->connection_flush_due, Py_True);
    }
    if (size + PyBytes_GET_SIZE(frame) >= limit && call_method(connection, hot->names[BE_BUSY]) < 0) return -1;
    return 1;
}

PyObject *connection_send_frame(PyObject *connection, PyObject *frame)
{
    Hot *hot = the_hot();
    int queued = queue_frames(hot, connection, frame, 1);
    if (queued < 0) return NULL;
    if (queued > 0) Py_RETURN_TRUE;
    PyObject *args[] = {connection, frame};
    return PyObject_Vectorcall(hot->of_python[SEND_FRAME], args, 2, NULL);
}

/* All of a deque with so many bytes, as one piece, taken off; NULL where it is not for us, or with an exception. */
static PyObject *take_all(Hot *hot, PyObject *ready, Py_ssize_t size)
{
    Py_ssize_t count = PyObject_Size(ready);
    if (count == 1) {
        PyObject *piece = PyObject_CallOneArg(hot->popleft, ready);
        if (piece == NULL || (PyBytes_CheckExact(piece) && PyBytes_GET_SIZE(piece) == size)) return piece;
        PyObject *args[] = {ready, piece};
        PyObject *back = PyObject_VectorcallMethod(hot->names[APPENDLEFT], args, 2, NULL);
        Py_XDECREF(back);
        Py_DECREF(piece);
        return NULL;
    }
    PyObject *pieces = count < 1 ? NULL : PySequence_List(ready), *joined = NULL;
    if (pieces == NULL) return NULL;
    Py_ssize_t sum = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces); i++) {
        PyObject *piece = PyList_GET_ITEM(pieces, i);
        if (!PyBytes_CheckExact(piece)) goto exit;
        sum += PyBytes_GET_SIZE(piece);
    }
    joined = sum == size ? PyBytes_FromStringAndSize(NULL, size) : NULL;
    if (joined == NULL) goto exit;
    char *to = PyBytes_AS_STRING(joined);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces); i++) {
        PyObject *piece = PyList_GET_ITEM(pieces, i);
        memcpy(to, PyBytes_AS_STRING(piece), (size_t)PyBytes_GET_SIZE(piece));
        to += PyBytes_GET_SIZE(piece);
    }
    if (call_method(ready, hot->names[CLEAR]) < 0) Py_CLEAR(joined);
exit:
    Py_DECREF(pieces);
    return joined;
}

/* Connection._flush, of a few small packets */
PyObject *connection_flush(PyObject *connection, PyObject *Py_UNUSED(ignored))
{
    Hot *hot = the_hot();
    PyObject *channel, *queue = open_queue(hot, connection, &channel), *piece = NULL;
    PyObject *transport = *field_at(connection, hot->connection_transport);
    Py_ssize_t size = queue == NULL ? -1 : number_at(queue, hot->queue_size);
    Py_ssize_t most = number_at(connection, hot->connection_write_buffer);

    if (size <= 0 || size >= COPY_BELOW || size > most || transport == NULL || transport == Py_None ||
        *field_at(connection, hot->connection_closed) != Py_False ||
        *field_at(connection, hot->connection_writable) != Py_True) {
        goto python;
    }
    PyObject *ticker = *field_at(channel, hot->channel_ticker);
    if (ticker == NULL || Py_TYPE(ticker) != hot->ticker) goto python;
    set_field(connection, hot->connection_flush_due, Py_False);  /* also where this fails, as that of a link */
    Py_INCREF(queue);  /* the garbage collector may run, and so anything */
    Py_INCREF(ticker);
    Py_INCREF(transport);
    PyObject *writes = sum_of(ticker, hot->ticker_sent, 1), *written = NULL;
    PyObject *bytes = writes == NULL ? NULL : sum_of(connection, hot->connection_sent_bytes, size);
    piece = bytes == NULL ? NULL : take_all(hot, *field_at(queue, hot->queue_ready), size);
    if (piece != NULL) {
        set_field(queue, hot->queue_size, hot->etf->bytes_of[0]);
        set_field(ticker, hot->ticker_sent, writes);
        set_field(connection, hot->connection_sent_bytes, bytes);
        PyObject *args[] = {transport, piece};
        written = PyObject_VectorcallMethod(hot->names[WRITE], args, 2, NULL);
        Py_DECREF(piece);
    }
    Py_XDECREF(writes);
    Py_XDECREF(bytes);
    Py_DECREF(queue);
    Py_DECREF(ticker);
    Py_DECREF(transport);
    if (written == NULL) {
        if (PyErr_Occurred()) return NULL;
        goto python;
    }
    Py_DECREF(written);
    queue = open_queue(hot, connection, &channel);  /* whatever the transport did meanwhile */
    if (queue != NULL && number_at(queue, hot->queue_size) == 0) Py_RETURN_NONE;
python:
    return PyObject_CallOneArg(hot->of_python[FLUSH], connection);
}

/* --- links ----------------------------------------------------------------------------------------- */

bool is_link_open(Hot *hot, PyObject *link)
{
    PyObject *transport = *field_at(link, hot->link_transport);
    Py_ssize_t size = number_at(link, hot->link_out_size);
    return transport != NULL && transport != Py_None && size >= 0 && *field_at(link, hot->link_out) != NULL &&
        size <= number_at(link, hot->link_high_water) &&
        *field_at(link, hot->link_writable) == Py_True;  /* else small frames are joined: LinkProtocol._add */
}

int put_on_link(Hot *hot, PyObject *link, PyObject *frame)
{
    if (!PyBytes_CheckExact(frame) || !is_link_open(hot, link)) return 0;
    if (*field_at(link, hot->link_flush_due) == Py_False) {
        if (flush_later(hot, link, hot->link_turn, FLUSH_LINK_NAME) < 0) return -1;
        set_field(link, hot->link_flush_due, Py_True);
    }
    PyObject *out = Py_XNewRef(*field_at(link, hot->link_out));
    PyObject *more = out == NULL ? NULL : sum_of(link, hot->link_out_size, PyBytes_GET_SIZE(frame));
    int failed = more == NULL ? -1 : append_to(hot, out, frame);
    if (!failed) set_field(link, hot->link_out_size, more);
    if (out == NULL) PyErr_SetString(PyExc_AttributeError, "_out");
    Py_XDECREF(more);
    Py_XDECREF(out);
    return failed ? -1 : 1;
}

/* LinkProtocol.send_frame */
PyObject *link_send_frame(PyObject *link, PyObject *frame)
{
    Hot *hot = the_hot();
    int queued = put_on_link(hot, link, frame);
    if (queued < 0) return NULL;
    if (queued > 0) Py_RETURN_TRUE;
    PyObject *args[] = {link, frame};
    return PyObject_Vectorcall(hot->of_python[SEND_FRAME_ON_LINK], args, 2, NULL);
}

/* LinkProtocol.flush, of a few small frames */
PyObject *link_flush(PyObject *link, PyObject *Py_UNUSED(ignored))
{
    Hot *hot = the_hot();
    PyObject *transport = *field_at(link, hot->link_transport), *out = *field_at(link, hot->link_out);
    Py_ssize_t size = number_at(link, hot->link_out_size);

    if (transport == NULL || transport == Py_None || out == NULL || size <= 0 || size >= COPY_BELOW ||
        *field_at(link, hot->link_busy) != Py_False || *field_at(link, hot->link_writable) != Py_True) {
        goto python;
    }
    set_field(link, hot->link_flush_due, Py_False);  /* also where this fails: the next frame has it flushed */
    Py_INCREF(transport);
    Py_INCREF(out);
    PyObject *closing = PyObject_CallMethodNoArgs(transport, hot->names[IS_CLOSING]), *written = NULL;
    Py_XDECREF(closing);
    PyObject *piece = closing != Py_False ? NULL : take_all(hot, out, size);
    if (piece != NULL) {
        set_field(link, hot->link_out_size, hot->etf->bytes_of[0]);
        PyObject *args[] = {transport, piece};
        written = PyObject_VectorcallMethod(hot->names[WRITE], args, 2, NULL);
        Py_DECREF(piece);
    }
    Py_DECREF(transport);
    Py_DECREF(out);
    if (written == NULL) {
        if (PyErr_Occurred()) return NULL;
        goto python;
    }
    Py_DECREF(written);
    if (*field_at(link, hot->link_busy) == Py_False && number_at(link, hot->link_out_size) == 0) Py_RETURN_NONE;
python:
    return PyObject_CallOneArg(hot->of_python[FLUSH_LINK], link);
}

/* --- ways ------------------------------------------------------------------------------------------ */

/* See `ways.way_out`, `way_for_signals`, `way_unread`. */
enum Kind { OF_TERMS, OF_SIGNALS, OF_THE_UNREAD };

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Hot *hot;
    PyObject *head, *most, *port;
    int kind;
} Way;

/* ways.way_unread: the frame, or None */
static PyObject *frame_of_unread(Way *self, PyObject *rest)
{
    if (!PyBytes_CheckExact(rest)) {
        PyErr_SetString(PyExc_TypeError, "what is not read is bytes");
        return NULL;
    }
    Py_ssize_t head = PyBytes_GET_SIZE(self->head), size = head + PyBytes_GET_SIZE(rest);
    if (size > PyLong_AsSsize_t(self->most)) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    return frame_from(
        PyBytes_AS_STRING(self->head), head, PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest));
}

/* The way through a connection that this is, NULL where it is none. */
static Way *way_unread(Hot *hot, PyObject *way)
{
    Way *self = (Way *)way;
    bool is_one = Py_TYPE(way) == hot->way && self->kind == OF_THE_UNREAD && Py_TYPE(self->port) == hot->connection;
    return is_one ? self : NULL;
}

int pass_on(Hot *hot, PyObject *way, const uint8_t *rest, Py_ssize_t size)
{
    Way *self = way_unread(hot, way);
    Py_ssize_t most = self == NULL ? 0 : PyLong_AsSsize_t(self->most);
    if (most == -1 && PyErr_Occurred()) return -1;
    if (self == NULL || PyBytes_GET_SIZE(self->head) + size > most) return 0;
    PyObject *frame =
        frame_from(PyBytes_AS_STRING(self->head), PyBytes_GET_SIZE(self->head), (const char *)rest, size);
    int sent = frame == NULL ? -1 : queue_frames(hot, self->port, frame, 1);
    Py_XDECREF(frame);
    return sent;
}

/* How many of these fit: each no longer than a frame may be, and together no more than leaves the connection idle. */
static Py_ssize_t how_many_fit(Py_ssize_t head, const Rests *rests, Py_ssize_t most, Py_ssize_t room, Py_ssize_t *total)
{
    Py_ssize_t count = 0;
    for (*total = 0; count < rests->count; count++) {
        Py_ssize_t size = 4 + head + rests->sizes[count];
        if (size - 4 > most || size >= room - *total) break;
        *total += size;
    }
    return count;
}

Py_ssize_t pass_many_on(Hot *hot, PyObject *way, const Rests *rests)
{
    PyObject *channel;
    Py_ssize_t total;
    Way *self = way_unread(hot, way);
    PyObject *queue = self == NULL ? NULL : open_queue(hot, self->port, &channel);
    Py_ssize_t queued = queue == NULL ? -1 : number_at(queue, hot->queue_size);
    Py_ssize_t limit = queued < 0 ? -1 : number_at(self->port, hot->connection_busy_limit);
    if (limit < 0) return 0;
    Py_ssize_t most = PyLong_AsSsize_t(self->most), head = PyBytes_GET_SIZE(self->head);
    if (most == -1 && PyErr_Occurred()) return -1;
    Py_ssize_t count = how_many_fit(head, rests, most, limit - queued, &total);
    if (count == 0) return 0;
    PyObject *frames = PyBytes_FromStringAndSize(NULL, total);
    if (frames == NULL) return -1;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(frames);
    for (Py_ssize_t i = 0; i < count; i++) {
        to = put_frame(to, PyBytes_AS_STRING(self->head), head, (const char *)rests->at[i], rests->sizes[i]);
    }
    int sent = queue_frames(hot, self->port, frames, count);
    Py_DECREF(frames);
    return sent <= 0 ? sent : count;
}

static PyObject *way_call(Way *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Hot *hot = self->hot;
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (count != (self->kind == OF_SIGNALS ? 2 : 1) || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a way takes a term, one of signals a control message in front of it");
        return NULL;
    }
    PyObject *of_frame[] = {self->head, args[count - 1], self->most, args[0]};
    PyObject *frame = self->kind == OF_THE_UNREAD ? frame_of_unread(self, args[0])
        : PyObject_Vectorcall(hot->pack_frame, of_frame, self->kind == OF_SIGNALS ? 4 : 3, NULL);
    if (frame == NULL) return NULL;
    PyObject *sent = NULL;
    if (frame == Py_None) {
        sent = Py_NewRef(Py_False);
    }
    else if (Py_TYPE(self->port) == hot->connection) {
        sent = connection_send_frame(self->port, frame);
    }
    else if (Py_TYPE(self->port) == hot->link) {
        sent = link_send_frame(self->port, frame);
    }
    else {
        PyObject *of_port[] = {self->port, frame};
        sent = PyObject_VectorcallMethod(hot->names[SEND_FRAME_NAME], of_port, 2, NULL);
    }
    Py_DECREF(frame);
    return sent;
}

static PyObject *way_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *head, *most, *port;
    int kind;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Way() takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "SO!Oi:Way", &head, &PyLong_Type, &most, &port, &kind)) return NULL;
    Way *self = (Way *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->call = (vectorcallfunc)way_call;
    self->hot = PyType_GetModuleState(type);
    self->head = Py_NewRef(head);
    self->most = Py_NewRef(most);
    self->port = Py_NewRef(port);
    self->kind = kind;
    return (PyObject *)self;
}

static int way_traverse(Way *self, visitproc visit, void *arg)
{
    Py_VISIT(self->port);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int way_clear(Way *self)
{
    Py_CLEAR(self->head);
    Py_CLEAR(self->most);
    Py_CLEAR(self->port);
    return 0;
}

static void way_dealloc(Way *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    way_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef way_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Way, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot way_slots[] = {
    {Py_tp_new, way_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, way_dealloc},
    {Py_tp_traverse, way_traverse},
    {Py_tp_clear, way_clear},
    {Py_tp_members, way_members},
    {0, NULL},
};

PyType_Spec way_spec = {
    .name = "pyglyn.node._hot.Way",
    .basicsize = sizeof(Way),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = way_slots,
};
