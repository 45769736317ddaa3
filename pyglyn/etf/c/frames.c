/* Frames of a length, a head and a term: the twin of frames.py.
 *
 * Whoever sends these bytes may be hostile: no length is used before it was held against what is there.
 */

#include "codec.h"

enum { MOST_IN_HEAD = 64, LONGEST_HEAD = 1024 };  /* as in frames.py */
enum { MOST_AT_ONCE = 1 << 20 };

static inline Py_ssize_t length_at(const uint8_t *bytes)
{
    return (Py_ssize_t)((uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3]);
}

/* --- cutting --------------------------------------------------------------------------------------- */

/* How many bytes are left behind an atom and so many bytes more; -1 where they are not there. */
static inline Py_ssize_t left_behind_node(const uint8_t *at, Py_ssize_t left, Py_ssize_t more)
{
    if (left < 2 || at[0] != SMALL_ATOM_UTF8_EXT) return -1;
    return left - 2 - at[1] - more;
}

/* frames._end_of_head: how many of these bytes it takes, 0 where it is none */
static Py_ssize_t size_of_head(const uint8_t *data, Py_ssize_t size)
{
    Py_ssize_t left = size, terms = 1;

    for (int i = 0; i < MOST_IN_HEAD; i++) {
        const uint8_t *at = data + (size - left);
        if (left < 2) return 0;
        switch (at[0]) {
        case SMALL_TUPLE_EXT:
            terms += at[1];
            left -= 2;
            break;
        case SMALL_INTEGER_EXT:
            left -= 2;
            break;
        case INTEGER_EXT:
            left -= 5;
            break;
        case SMALL_ATOM_UTF8_EXT:
            left -= 2 + at[1];
            break;
        case NEW_PID_EXT:
            left = left_behind_node(at + 1, left - 1, 12);
            break;
        case NEWER_REFERENCE_EXT:
            if (at[1] != 0 || left < 3) return 0;
            left = left_behind_node(at + 3, left - 3, 4 + 4 * at[2]);
            break;
        default:
            return 0;
        }
        if (left < 0) return 0;
        if (--terms == 0) return size - left;
    }
    return 0;
}

/* What all frames of one call have in common, and the run under way. */
typedef struct {
    State *state;
    const uint8_t *begins;
    Py_ssize_t begins_size;
    PyObject *known, *runs;
    Py_ssize_t most;            /* of those */
    PyObject *signals;          /* a dict, or NULL */
    PyObject *unread;           /* a dict, or NULL */
    const uint8_t *head;        /* of the last frame */
    Py_ssize_t head_size;
    PyObject *terms;            /* of its run, borrowed from `runs` */
} Cut;

/* Begin a run with the head of this frame: 1 if it is known, 0 if it is not, -1 on failure. */
static int begin_run(Cut *cut, const uint8_t *body, Py_ssize_t size)
{
    if (size < cut->begins_size || memcmp(body, cut->begins, (size_t)cut->begins_size) != 0) return 0;
    Py_ssize_t rest = Py_MIN(size - cut->begins_size, LONGEST_HEAD);
    Py_ssize_t head_size = size_of_head(body + cut->begins_size, rest);
    if (head_size == 0) return 0;
    head_size += cut->begins_size;
    if (head_size == size) return 0;
    PyObject *head = PyBytes_FromStringAndSize((const char *)body, head_size);
    if (head == NULL) return -1;
    PyObject *what = PyDict_GetItemWithError(cut->known, head);
    Py_DECREF(head);
    if (what == NULL) return PyErr_Occurred() ? -1 : 0;
    PyObject *terms = PyList_New(0);
    PyObject *run = terms == NULL ? NULL : PyTuple_Pack(2, what, terms);
    int failed = run == NULL ? -1 : PyList_Append(cut->runs, run);
    Py_XDECREF(run);
    Py_XDECREF(terms);
    if (failed < 0) return -1;
    cut->head = body;
    cut->head_size = head_size;
    cut->terms = terms;  /* the list of runs has it */
    return 1;
}

/* frames._is_of: whether a field of a signal is what its letter says */
static bool is_of(State *state, PyObject *field, char letter)
{
    PyTypeObject *type = Py_TYPE(field);
    if (letter == 'r') return type == state->reference.type;
    if (letter == 'i') return PyLong_CheckExact(field) && PyLong_AsLong(field) > 0;  /* a head has no large ones */
    if (type == state->pid.type) return true;
    return letter == 'n' && (type == state->atom.type || PyBool_Check(field) || field == Py_None);
}

/* Add a run of one: 0, or -1 on failure. Takes the references, of which one may be NULL after a failure. */
static int add_one(Cut *cut, PyObject *what, PyObject *rest)
{
    PyObject *one = what == NULL || rest == NULL ? NULL : PyTuple_Pack(2, what, rest);
    int failed = one == NULL ? -1 : PyList_Append(cut->runs, one);
    Py_XDECREF(one);
    Py_XDECREF(what);
    Py_XDECREF(rest);
    cut->head = NULL;  /* what comes behind it begins another run */
    return failed;
}

/* Whether a signal of this form has so many fields, and whether a term comes behind it: -1 with an exception. */
static int is_form(PyObject *form, Py_ssize_t count, bool with_payload)
{
    Py_ssize_t size;

    if (!PyTuple_CheckExact(form) || PyTuple_GET_SIZE(form) != 3) {
        PyErr_SetString(PyExc_TypeError, "cut_frames: a signal has letters, what is called, and whether a term follows");
        return -1;
    }
    if (PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(form, 0), &size) == NULL) return -1;
    return size == count && (PyTuple_GET_ITEM(form, 2) == Py_True) == with_payload;
}

/* frames._signal_in: what a head means, a new reference; NULL where it is no signal of these, or with an exception */
static PyObject *signal_in(Cut *cut, PyObject *head, bool with_payload)
{
    PyObject *node = NULL, *fields = head;

    if (cut->begins_size == 0) {
        node = PyTuple_GET_ITEM(head, 0);
        fields = PyTuple_GET_ITEM(head, 1);
        if (!PyTuple_CheckExact(fields) || PyTuple_GET_SIZE(fields) < 2) return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(fields) - 1;
    PyObject *form = PyDict_GetItemWithError(cut->signals, PyTuple_GET_ITEM(fields, 0));
    if (form == NULL) return NULL;
    if (is_form(form, count, with_payload) <= 0) return NULL;
    const char *letters = PyUnicode_AsUTF8(PyTuple_GET_ITEM(form, 0));
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!is_of(cut->state, PyTuple_GET_ITEM(fields, i + 1), letters[i])) return NULL;
    }
    PyObject *signal = PyObject_Vectorcall(PyTuple_GET_ITEM(form, 1), &PyTuple_GET_ITEM(fields, 1), (size_t)count, NULL);
    if (signal == NULL || node == NULL) return signal;
    bool named = Py_IS_TYPE(node, cut->state->atom.type);
    PyObject *pair = PyTuple_Pack(2, signal, named ? *slot(node, &cut->state->atom, 0) : Py_None);
    Py_DECREF(signal);
    return pair;
}

/* Where the number of the operation is in a head that may be a signal's, 0 in any other. */
static Py_ssize_t place_of_op(const Cut *cut, const uint8_t *head, Py_ssize_t size)
{
    Py_ssize_t at = 0;
    if (cut->begins_size == 0) {
        if (size < 4 || head[0] != SMALL_TUPLE_EXT || head[1] != 2 || head[2] != SMALL_ATOM_UTF8_EXT) return 0;
        at = 4 + head[3];
    }
    if (size - at < 4 || head[at] != SMALL_TUPLE_EXT || head[at + 1] < 2) return 0;
    return head[at + 2] == SMALL_INTEGER_EXT ? at + 3 : 0;
}

/* Leave a signal with a term unread, where that is for its node: 1 if it was, 0 if not, -1 on failure. */
static int leave_unread(Cut *cut, const uint8_t *body, Py_ssize_t size, Py_ssize_t op)
{
    Py_ssize_t name_size = body[3], behind = 4 + name_size;
    PyObject *name = PyBytes_FromStringAndSize((const char *)body + 4, name_size);
    if (name == NULL) return -1;
    PyObject *way = PyDict_GetItemWithError(cut->unread, name);
    Py_DECREF(name);
    if (way == NULL) return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(way);
    PyObject *form = PyDict_GetItemWithError(cut->signals, cut->state->bytes_of[body[op]]);
    int is_one = form == NULL ? -1 : is_form(form, body[op - 2] - 1, true);
    if (is_one <= 0) {
        Py_DECREF(way);
        return is_one;
    }
    PyObject *rest = PyBytes_FromStringAndSize((const char *)body + behind, size - behind);
    return add_one(cut, way, rest) < 0 ? -1 : 1;
}

/* Take a frame that is one of the signals: 1 if it is, 0 if it is not, -1 on failure. */
static int cut_signal(Cut *cut, const uint8_t *body, Py_ssize_t size)
{
    if (size < cut->begins_size || memcmp(body, cut->begins, (size_t)cut->begins_size) != 0) return 0;
    const uint8_t *begin = body + cut->begins_size;
    Py_ssize_t rest = Py_MIN(size - cut->begins_size, LONGEST_HEAD);
    Py_ssize_t op = place_of_op(cut, begin, rest);
    if (op == 0) return 0;
    int is_one = PyDict_Contains(cut->signals, cut->state->bytes_of[begin[op]]);
    if (is_one <= 0) return is_one;
    Py_ssize_t head_size = size_of_head(begin, rest);
    if (head_size == 0) return 0;
    Py_ssize_t left = size - cut->begins_size - head_size;
    if (cut->unread != NULL && left > 0) {
        int left_unread = leave_unread(cut, body, size, op);
        if (left_unread != 0) return left_unread;
    }
    Reader reader;
    begin_reading(&reader, cut->state, begin, 0, head_size);
    PyObject *head = read_term(&reader);
    end_reading(&reader);
    if (head == NULL) return may_go_on() ? 0 : -1;
    PyObject *signal = signal_in(cut, head, left > 0);
    Py_DECREF(head);
    if (signal == NULL) return PyErr_Occurred() ? -1 : 0;
    PyObject *payload =
        left > 0 ? PyBytes_FromStringAndSize((const char *)begin + head_size, left) : Py_NewRef(Py_None);
    return add_one(cut, signal, payload) < 0 ? -1 : 1;
}

/* frames.cut_frames: where the next frame begins, or -1 */
static Py_ssize_t cut_from(Cut *cut, const uint8_t *data, Py_ssize_t end, Py_ssize_t at, Py_ssize_t least)
{
    while (end - at >= 4) {
        const uint8_t *body = data + at + 4;
        Py_ssize_t size = length_at(data + at);
        if (size >= least || size > end - at - 4) break;
        if (cut->head == NULL || size <= cut->head_size || memcmp(body, cut->head, (size_t)cut->head_size) != 0) {
            if (PyList_GET_SIZE(cut->runs) >= cut->most) break;
            int is_signal = cut->signals == NULL ? 0 : cut_signal(cut, body, size);
            if (is_signal < 0) return -1;
            if (is_signal > 0) {
                at += 4 + size;
                continue;
            }
            int begun = begin_run(cut, body, size);
            if (begun < 0) return -1;
            if (begun == 0) break;
        }
        PyObject *term = PyBytes_FromStringAndSize((const char *)body + cut->head_size, size - cut->head_size);
        int failed = term == NULL ? -1 : PyList_Append(cut->terms, term);
        Py_XDECREF(term);
        if (failed < 0) return -1;
        at += 4 + size;
    }
    return at;
}

PyObject *cut_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer view;

    PyObject *signals = nargs >= 7 && args[6] != Py_None ? args[6] : NULL;
    PyObject *unread = nargs == 9 && args[8] != Py_None ? args[8] : NULL;
    if (nargs < 6 || nargs > 9 || !PyBytes_CheckExact(args[3]) || !PyDict_CheckExact(args[4]) ||
        !PyList_CheckExact(args[5]) || (signals != NULL && !PyDict_CheckExact(signals)) ||
        (unread != NULL && !PyDict_CheckExact(unread))) {
        PyErr_SetString(
            PyExc_TypeError,
            "cut_frames(data, at, least, begins: bytes, known: dict, runs: list, signals: dict | None, most, "
            "unread: dict | None)");
        return NULL;
    }
    if (PyBytes_GET_SIZE(args[3]) > 0 || (unread != NULL && PyDict_GET_SIZE(unread) == 0)) unread = NULL;
    Py_ssize_t at = PyLong_AsSsize_t(args[1]), least = PyLong_AsSsize_t(args[2]);
    Py_ssize_t most = nargs >= 8 ? PyLong_AsSsize_t(args[7]) : PY_SSIZE_T_MAX;
    if (PyErr_Occurred()) return NULL;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) return NULL;
    if (at < 0 || at > view.len) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "cut_frames: there is no such place in the data");
        return NULL;
    }
    Cut cut = {
        .state = state_of(module), .begins = (const uint8_t *)PyBytes_AS_STRING(args[3]),
        .begins_size = PyBytes_GET_SIZE(args[3]), .known = args[4], .runs = args[5], .most = most,
        .signals = signals, .unread = unread};
    at = cut_from(&cut, view.buf, view.len, at, least);
    PyBuffer_Release(&view);
    return at < 0 ? NULL : PyLong_FromSsize_t(at);
}

/* --- joining --------------------------------------------------------------------------------------- */

static inline uint8_t *put_length(uint8_t *to, uint32_t length)
{
    *to++ = (uint8_t)(length >> 24);
    *to++ = (uint8_t)(length >> 16);
    *to++ = (uint8_t)(length >> 8);
    *to++ = (uint8_t)length;
    return to;
}

/* frames.join_frames, of a list of bytes: NULL without an exception where it is for Python */
static PyObject *join_list(PyObject *head, PyObject *terms)
{
    Py_ssize_t each = 4 + PyBytes_GET_SIZE(head), total = 0, count = PyList_GET_SIZE(terms);

    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *term = PyList_GET_ITEM(terms, i);
        if (!PyBytes_CheckExact(term)) return NULL;
        Py_ssize_t size = PyBytes_GET_SIZE(term);
        if ((uint64_t)size + (uint64_t)each - 4 > UINT32_MAX || total > PY_SSIZE_T_MAX - each - size) return NULL;
        total += each + size;
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    if (joined == NULL) return NULL;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(joined);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *term = PyList_GET_ITEM(terms, i);
        to = put_length(to, (uint32_t)(each - 4 + PyBytes_GET_SIZE(term)));
        memcpy(to, PyBytes_AS_STRING(head), (size_t)(each - 4));
        memcpy(to + each - 4, PyBytes_AS_STRING(term), (size_t)PyBytes_GET_SIZE(term));
        to += each - 4 + PyBytes_GET_SIZE(term);
    }
    return joined;
}

PyObject *join_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 2 && PyBytes_CheckExact(args[0]) && PyList_CheckExact(args[1])) {
        PyObject *joined = join_list(args[0], args[1]);
        if (joined != NULL || PyErr_Occurred()) return joined;
    }
    return PyObject_Vectorcall(state_of(module)->join_frames, args, (size_t)nargs, NULL);
}

/* --- writing --------------------------------------------------------------------------------------- */

/* frames.pack_frame: NULL without an exception where it is for Python */
static PyObject *pack(State *state, PyObject *head, PyObject *control, PyObject *term, Py_ssize_t most)
{
    Writer writer;
    PyObject *frame = NULL;
    static const uint8_t length[4] = {0};

    begin_writing(&writer, state);
    writer.most = 4 + most;
    if (write_raw(&writer, length, 4) == 0 &&
        write_raw(&writer, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head)) == 0 &&
        (control == Py_None || write_term(&writer, control) == 0) && write_term(&writer, term) == 0) {
        bool fits = writer.size - 4 <= most;  /* what was small enough for the room at hand was not measured */
        put_length(writer.data, (uint32_t)(writer.size - 4));
        frame = fits ? take_written(&writer) : Py_NewRef(Py_None);
    }
    else if (writer.full) {
        frame = Py_NewRef(Py_None);
    }
    end_writing(&writer);
    return frame;
}

PyObject *pack_frame(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = state_of(module);
    if ((nargs == 3 || nargs == 4) && PyBytes_CheckExact(args[0]) && PyLong_CheckExact(args[2])) {
        Py_ssize_t most = PyLong_AsSsize_t(args[2]);
        if (most == -1 && PyErr_Occurred()) return NULL;
        if (0 <= most && most <= MOST_AT_ONCE) {
            PyObject *frame = pack(state, args[0], nargs == 4 ? args[3] : Py_None, args[1], most);
            if (frame != NULL || !may_go_on()) return frame;
        }
    }
    return PyObject_Vectorcall(state->pack_frame, args, (size_t)nargs, NULL);
}
