/* Terms to bytes: the twin of encoder._walk, and of writers.py.
 *
 * Whatever fails here is begun anew in Python, which alone tells what is wrong.
 */

#include "codec.h"

enum { FAILED = -1, DONE = 0, OPENED = 1 };

/* --- bytes ----------------------------------------------------------------------------------------- */

static void begin_part(Writer *writer)
{
    writer->object = NULL;
    writer->data = writer->small;
    writer->size = 0;
    writer->room = SMALL_TERM;
}

bool more_room(Writer *writer, Py_ssize_t more)
{
    if (more > PY_SSIZE_T_MAX / 2 - writer->size) return false;
    if (writer->most > 0 && writer->size + more > writer->most) {
        writer->full = true;
        return false;
    }
    Py_ssize_t room = Py_MAX(writer->size + more, writer->size * 2);
    if (writer->object != NULL) {
        if (_PyBytes_Resize(&writer->object, room) < 0) return false;
    }
    else {
        writer->object = PyBytes_FromStringAndSize(NULL, room);
        if (writer->object == NULL) return false;
        memcpy(PyBytes_AS_STRING(writer->object), writer->small, (size_t)writer->size);
    }
    writer->data = (uint8_t *)PyBytes_AS_STRING(writer->object);
    writer->room = room;
    return true;
}

PyObject *take_written(Writer *writer)
{
    PyObject *result = writer->object;
    if (result == NULL) {
        result = PyBytes_FromStringAndSize((const char *)writer->small, writer->size);
    }
    else {
        _PyBytes_Resize(&result, writer->size);
    }
    begin_part(writer);
    return result;
}

int write_raw(Writer *writer, const void *bytes, Py_ssize_t size)
{
    uint8_t *to = reserve(writer, size);
    if (to == NULL) return FAILED;
    memcpy(to, bytes, (size_t)size);
    return DONE;
}

static inline uint8_t *put(uint8_t *to, uint64_t value, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        *to++ = (uint8_t)(value >> (8 * i));
    }
    return to;
}

/* A tag and a length of 1, 2 or 4 bytes, and room for that many more bytes: where those go, or NULL. */
static inline uint8_t *write_head(Writer *writer, int tag, uint64_t length, int width, Py_ssize_t more)
{
    if (length >> (8 * width)) return NULL;
    uint8_t *to = reserve(writer, 1 + width + more);
    if (to == NULL) return NULL;
    *to++ = (uint8_t)tag;
    return put(to, length, width);
}

/* What a writer of writers.py passes to `write`: copied, or a part of its own in encode_parts. */
static int write_part(Writer *writer, PyObject *part)
{
    Py_buffer view;
    int failed;

    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0) return FAILED;
    if (writer->parts != NULL && view.len >= LARGE_PART) {
        PyObject *run = take_written(writer);
        failed = run == NULL || PyList_Append(writer->parts, run) < 0 ||
            PyList_Append(writer->parts, part) < 0 ? FAILED : DONE;
        Py_XDECREF(run);
    }
    else {
        failed = write_raw(writer, view.buf, view.len);
    }
    PyBuffer_Release(&view);
    return failed;
}

/* --- values without elements ----------------------------------------------------------------------- */

/* Any writer of writers.py; a value of any other type is for pure.py. */
static int write_leaf(Writer *writer, PyObject *term)
{
    PyObject *parts = NULL, *append = NULL, *done = NULL;
    int failed = FAILED;

    Py_INCREF(term);
    PyObject *function = PyDict_GetItemWithError(writer->state->leaf_writers, (PyObject *)Py_TYPE(term));
    if (function == NULL) goto exit;
    parts = PyList_New(0);
    append = parts == NULL ? NULL : PyObject_GetAttrString(parts, "append");
    done = append == NULL ? NULL : PyObject_CallFunctionObjArgs(function, term, append, NULL);
    failed = done == NULL ? FAILED : DONE;
    for (Py_ssize_t i = 0; failed == DONE && i < PyList_GET_SIZE(parts); i++) {
        failed = write_part(writer, PyList_GET_ITEM(parts, i));
    }
exit:
    Py_DECREF(term);
    Py_XDECREF(parts);
    Py_XDECREF(append);
    Py_XDECREF(done);
    return failed;
}

/* Which of State.bytes_of this is, or -1: the usual integers from 0 to 255 are known by where they are. */
static inline int byte_of(State *state, PyObject *item)
{
    uintptr_t distance = (uintptr_t)item - (uintptr_t)state->bytes_of[0];
    return distance < state->bytes_end ? (int)(distance >> state->bytes_shift) : -1;
}

/* writers.write_int */
static int write_int(Writer *writer, PyObject *term)
{
    int overflow, byte = byte_of(writer->state, term);
    if (byte >= 0) {
        uint8_t *to = reserve(writer, 2);
        if (to == NULL) return FAILED;
        to[0] = SMALL_INTEGER_EXT;
        to[1] = (uint8_t)byte;
        return DONE;
    }
    uint64_t magnitude;
    bool negative;
    if (!small_integer(term, &magnitude, &negative)) {
        long long value = PyLong_AsLongLongAndOverflow(term, &overflow);
        if (overflow != 0) return write_leaf(writer, term);
        negative = value < 0;
        magnitude = negative ? 0 - (uint64_t)value : (uint64_t)value;
    }
    if (magnitude <= 255 && !negative) {
        return write_head(writer, SMALL_INTEGER_EXT, magnitude, 1, 0) == NULL ? FAILED : DONE;
    }
    if (magnitude <= (uint64_t)INT32_MAX + negative) {
        uint32_t bits = negative ? 0 - (uint32_t)magnitude : (uint32_t)magnitude;
        return write_head(writer, INTEGER_EXT, bits, 4, 0) == NULL ? FAILED : DONE;
    }
    int size = 0;
    while (size < 8 && magnitude >> (8 * size)) {
        size++;
    }
    uint8_t *to = write_head(writer, SMALL_BIG_EXT, (uint64_t)size, 1, 1 + size);
    if (to == NULL) return FAILED;
    *to++ = negative;
    for (int i = 0; i < size; i++) {
        *to++ = (uint8_t)(magnitude >> (8 * i));
    }
    return DONE;
}

/* writers.write_float */
static int write_float(Writer *writer, PyObject *term)
{
    double value = PyFloat_AS_DOUBLE(term);
    uint64_t bits;
    uint8_t *to = isfinite(value) ? reserve(writer, 9) : NULL;
    if (to == NULL) return FAILED;
    *to++ = NEW_FLOAT_EXT;
    memcpy(&bits, &value, sizeof(bits));
    put_u64(to, bits);
    return DONE;
}

static inline const char *utf8_of(PyObject *text, Py_ssize_t *size)
{
    if (!PyUnicode_IS_COMPACT_ASCII(text)) return PyUnicode_AsUTF8AndSize(text, size);
    *size = PyUnicode_GET_LENGTH(text);
    return (const char *)PyUnicode_1BYTE_DATA(text);
}

/* The bytes of an atom's name, or NULL. */
static inline const char *name_of(PyObject *name, Py_ssize_t *size)
{
    if (name == NULL || !PyUnicode_CheckExact(name)) return NULL;
    return PyUnicode_GET_LENGTH(name) > MAX_ATOM_CHARACTERS ? NULL : utf8_of(name, size);
}

/* writers.encode_name, and room for that many bytes before and after it: where those before begin, or NULL; and
 * where those after do. */
static inline uint8_t *write_name_within(Writer *writer, PyObject *name, Py_ssize_t before, Py_ssize_t after, uint8_t **rest)
{
    Py_ssize_t size;
    const char *utf8 = name_of(name, &size);
    if (utf8 == NULL) return NULL;
    int width = size < 256 ? 1 : 2;
    uint8_t *to = reserve(writer, before + 1 + width + size + after);
    if (to == NULL) return NULL;
    uint8_t *at = to + before;
    *at++ = width == 1 ? SMALL_ATOM_UTF8_EXT : ATOM_UTF8_EXT;
    if (width == 2) {
        *at++ = (uint8_t)(size >> 8);
    }
    *at++ = (uint8_t)size;
    memcpy(at, utf8, (size_t)size);
    *rest = at + size;
    return to;
}

static int write_name(Writer *writer, PyObject *name)
{
    uint8_t *rest;
    return write_name_within(writer, name, 0, 0, &rest) == NULL ? FAILED : DONE;
}

/* writers.write_bytes */
static int write_bytes(Writer *writer, PyObject *term)
{
    Py_ssize_t size = PyBytes_GET_SIZE(term);
    bool large = size >= LARGE_PART && writer->parts != NULL;
    uint8_t *to = write_head(writer, BINARY_EXT, (uint64_t)size, 4, large ? 0 : size);
    if (to == NULL) return FAILED;
    if (large) return write_part(writer, term);
    memcpy(to, PyBytes_AS_STRING(term), (size_t)size);
    return DONE;
}

/* writers.write_str */
static int write_str(Writer *writer, PyObject *term)
{
    if (PyUnicode_IS_COMPACT_ASCII(term) && PyUnicode_GET_LENGTH(term) < LARGE_PART) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(term);
        uint8_t *to = write_head(writer, BINARY_EXT, (uint64_t)size, 4, size);
        if (to == NULL) return FAILED;
        memcpy(to, PyUnicode_1BYTE_DATA(term), (size_t)size);
        return DONE;
    }
    PyObject *utf8 = PyUnicode_AsUTF8String(term);
    int failed = utf8 == NULL ? FAILED : write_bytes(writer, utf8);
    Py_XDECREF(utf8);
    return failed;
}

/* --- identifiers ----------------------------------------------------------------------------------- */

/* One field that is a number of so many bits; false for anything else. */
static inline bool uint_in(PyObject *field, int bits, uint64_t *value)
{
    bool negative;
    if (field == NULL || !PyLong_CheckExact(field)) return false;
    if (small_integer(field, value, &negative)) return !negative && (bits == 64 || *value >> bits == 0);
    *value = PyLong_AsUnsignedLongLong(field);
    if (*value == UINT64_MAX && PyErr_Occurred()) return false;
    return bits == 64 || *value >> bits == 0;
}

static inline uint8_t *put_word(uint8_t *to, uint64_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
    return to + 4;
}

/* writers.write_pid */
static int write_pid(Writer *writer, PyObject *term)
{
    const Class *class = &writer->state->pid;
    uint64_t id, serial, creation;
    uint8_t *rest;
    if (!uint_in(*slot(term, class, 1), 32, &id) || !uint_in(*slot(term, class, 2), 32, &serial)) return FAILED;
    if (!uint_in(*slot(term, class, 3), 32, &creation)) return FAILED;
    uint8_t *to = write_name_within(writer, *slot(term, class, 0), 1, 12, &rest);
    if (to == NULL) return FAILED;
    *to = NEW_PID_EXT;
    put_word(put_word(put_word(rest, id), serial), creation);
    return DONE;
}

/* writers.write_port */
static int write_port(Writer *writer, PyObject *term)
{
    const Class *class = &writer->state->port;
    uint64_t id, creation;
    uint8_t *rest;
    if (!uint_in(*slot(term, class, 1), 64, &id) || !uint_in(*slot(term, class, 2), 32, &creation)) return FAILED;
    uint8_t *to = write_name_within(writer, *slot(term, class, 0), 1, 12, &rest);
    if (to == NULL) return FAILED;
    *to = V4_PORT_EXT;
    put_word(put_word(put_word(rest, id >> 32), id), creation);
    return DONE;
}

/* writers.write_reference */
static int write_reference(Writer *writer, PyObject *term)
{
    const Class *class = &writer->state->reference;
    PyObject *words = *slot(term, class, 2);
    uint64_t creation, numbers[MAX_REFERENCE_WORDS];
    uint8_t *rest;
    if (words == NULL || !PyTuple_CheckExact(words)) return FAILED;
    Py_ssize_t count = PyTuple_GET_SIZE(words);
    if (count < 1 || count > MAX_REFERENCE_WORDS) return FAILED;
    if (!uint_in(*slot(term, class, 1), 32, &creation)) return FAILED;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!uint_in(PyTuple_GET_ITEM(words, i), 32, &numbers[i])) return FAILED;
    }
    uint8_t *to = write_name_within(writer, *slot(term, class, 0), 3, 4 * (count + 1), &rest);
    if (to == NULL) return FAILED;
    to[0] = NEWER_REFERENCE_EXT;
    to[1] = 0;
    to[2] = (uint8_t)count;
    rest = put_word(rest, creation);
    for (Py_ssize_t i = 0; i < count; i++) {
        rest = put_word(rest, numbers[i]);
    }
    return DONE;
}

/* writers.write_export */
static int write_export(Writer *writer, PyObject *term)
{
    const Class *class = &writer->state->export;
    uint64_t arity;
    if (!uint_in(*slot(term, class, 2), 8, &arity) || write_raw(writer, "q", 1) < 0) return FAILED;
    if (write_name(writer, *slot(term, class, 0)) < 0) return FAILED;
    if (write_name(writer, *slot(term, class, 1)) < 0) return FAILED;
    return write_head(writer, SMALL_INTEGER_EXT, arity, 1, 0) == NULL ? FAILED : DONE;
}

/* --- containers ------------------------------------------------------------------------------------ */

/* Begin a container that has elements. */
static int open_frame(Writer *writer, PyObject *container, Py_ssize_t size, Kind kind)
{
    return enter(&writer->path, container, kind, size) ? OPENED : FAILED;
}

/* encoder._open_tuple, encoder._tuple_head */
static int open_tuple(Writer *writer, PyObject *term)
{
    Py_ssize_t arity = PyTuple_GET_SIZE(term);
    bool small = arity < 256;

    if (arity > MAX_TUPLE_ARITY) return FAILED;
    if (write_head(writer, small ? SMALL_TUPLE_EXT : LARGE_TUPLE_EXT, (uint64_t)arity, small ? 1 : 4, 0) == NULL) {
        return FAILED;
    }
    return arity == 0 ? DONE : open_frame(writer, term, arity, TUPLE);
}

/* encoder.string_bytes: 1 if the list was written as a string, 0 if it is none, -1 to leave it to Python,
 * which knows what to do with IntEnum and the like. */
static int write_string(Writer *writer, PyObject *list)
{
    State *state = writer->state;
    Py_ssize_t size = PyList_GET_SIZE(list), start = writer->size, i = 0;

    if (size <= MAX_STRING && size + 3 < LARGE_PART) {
        uint8_t *to = write_head(writer, STRING_EXT, (uint64_t)size, 2, size);
        if (to == NULL) return FAILED;
        for (; i < size; i++) {
            int byte = byte_of(state, PyList_GET_ITEM(list, i));
            if (byte < 0) break;
            to[i] = (uint8_t)byte;
        }
        if (i == size) return 1;
        writer->size = start;
    }
    for (; i < size; i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (byte_of(state, item) >= 0) continue;
        if (!PyLong_CheckExact(item)) return PyLong_Check(item) && !PyBool_Check(item) ? FAILED : 0;
        int overflow;
        long value = PyLong_AsLongAndOverflow(item, &overflow);
        if (overflow != 0 || value < 0 || value > 255) return 0;
    }
    if (size > MAX_STRING) return 0;
    uint8_t *to = write_head(writer, STRING_EXT, (uint64_t)size, 2, size);
    for (i = 0; to != NULL && i < size; i++) {
        to[i] = (uint8_t)PyLong_AsLong(PyList_GET_ITEM(list, i));
    }
    return to == NULL ? FAILED : 1;
}

/* encoder._open_list */
static int open_list(Writer *writer, PyObject *term)
{
    Py_ssize_t size = PyList_GET_SIZE(term);

    if (size == 0) return write_raw(writer, "j", 1);
    if (PyLong_Check(PyList_GET_ITEM(term, 0))) {
        int string = write_string(writer, term);
        if (string != 0) return string < 0 ? FAILED : DONE;
    }
    if (write_head(writer, LIST_EXT, (uint64_t)size, 4, 0) == NULL) return FAILED;
    return open_frame(writer, term, size, LIST);
}

/* encoder._open_improper: its elements, and then its tail as a container's last */
static int open_improper(Writer *writer, PyObject *term)
{
    const Class *class = &writer->state->improper_list;
    PyObject *elements = *slot(term, class, 0);

    if (elements == NULL || !PyTuple_CheckExact(elements) || *slot(term, class, 1) == NULL) return FAILED;
    Py_ssize_t size = PyTuple_GET_SIZE(elements);
    if (write_head(writer, LIST_EXT, (uint64_t)size, 4, 0) == NULL) return FAILED;
    return open_frame(writer, term, size + 1, IMPROPER_LIST);
}

/* encoder._open_map: a dict, or the entries of a TermMap */
static int open_map(Writer *writer, PyObject *term)
{
    bool entries = Py_TYPE(term) == writer->state->term_map.type;
    PyObject *map = entries ? entries_of(writer->state, term) : term;
    int failed = FAILED;

    Py_XINCREF(map);  /* Python code may run, and the map be let go meanwhile */
    if (map != NULL && (entries || check_keys(writer->state, map) == 0)) {
        Py_ssize_t size = PyDict_GET_SIZE(map);
        if (write_head(writer, MAP_EXT, (uint64_t)size, 4, 0) != NULL) {
            failed = size == 0 ? DONE : open_frame(writer, map, size, entries ? ENTRIES : DICT);
        }
    }
    Py_XDECREF(map);
    return failed;
}

/* --- the walk -------------------------------------------------------------------------------------- */

void begin_writing(Writer *writer, State *state)
{
    writer->state = state;
    writer->parts = writer->held = NULL;
    writer->most = 0;
    writer->full = false;
    begin_path(&writer->path, state);
    begin_part(writer);
}

void end_writing(Writer *writer)
{
    end_path(&writer->path);
    Py_XDECREF(writer->held);
    Py_XDECREF(writer->object);
    Py_XDECREF(writer->parts);
}

/* encoder._WRITERS, encoder._OPENERS */
static inline int write_one(Writer *writer, PyObject *term)
{
    State *state = writer->state;
    PyTypeObject *type = Py_TYPE(term);

    if (type == &PyBytes_Type) return write_bytes(writer, term);
    if (type == &PyLong_Type) return write_int(writer, term);
    if (type == &PyTuple_Type) return open_tuple(writer, term);
    if (type == state->atom.type) return write_name(writer, *slot(term, &state->atom, 0));
    if (type == &PyList_Type) return open_list(writer, term);
    if (type == &PyUnicode_Type) return write_str(writer, term);
    if (type == &PyDict_Type || type == state->term_map.type) return open_map(writer, term);
    if (type == &PyFloat_Type) return write_float(writer, term);
    if (term == Py_None) return write_raw(writer, "w\3nil", 5);
    if (type == &PyBool_Type) {
        return term == Py_True ? write_raw(writer, "w\4true", 6) : write_raw(writer, "w\5false", 7);
    }
    if (type == state->pid.type) return write_pid(writer, term);
    if (type == state->reference.type) return write_reference(writer, term);
    if (type == state->improper_list.type) return open_improper(writer, term);
    if (type == state->port.type) return write_port(writer, term);
    if (type == state->export.type) return write_export(writer, term);
    return write_leaf(writer, term);
}

/* The last element of a tuple, which is left: nothing comes after it. What holds the element is kept until the next
 * tuple is left. Takes the reference. */
static inline PyObject *last_of(Writer *writer, PyObject *tuple)
{
    PyObject *before = writer->held;
    writer->held = tuple;
    Py_XDECREF(before);
    return PyTuple_GET_ITEM(tuple, PyTuple_GET_SIZE(tuple) - 1);
}

/* Begin tuples of one element, one in the other: the first term that is none. */
static inline PyObject *into_single(Writer *writer, PyObject *term)
{
    while (PyTuple_CheckExact(term) && PyTuple_GET_SIZE(term) == 1) {
        uint8_t *to = reserve(writer, 2);
        if (to == NULL) return NULL;
        to[0] = SMALL_TUPLE_EXT;
        to[1] = 1;
        term = last_of(writer, Py_NewRef(term));
    }
    return term;
}

/* Numbers of a list that follow each other, as far as they are floats or integers of at most 60 bits. */
static inline bool write_run(Writer *writer, Open *frame)
{
    uint64_t magnitude;
    bool negative;
    if (PyList_GET_SIZE(frame->container) != frame->size) return true;  /* no Python code runs from here on */
    for (; frame->at < frame->size; frame->at++) {
        PyObject *item = PyList_GET_ITEM(frame->container, frame->at);
        if (PyFloat_CheckExact(item)) {
            if (write_float(writer, item) < 0) return false;
        }
        else if (!PyLong_CheckExact(item) || !small_integer(item, &magnitude, &negative)) return true;
        else if (write_int(writer, item) < 0) return false;
    }
    return true;
}

int write_term(Writer *writer, PyObject *term)
{
    Path *path = &writer->path;
    for (;;) {
        term = into_single(writer, term);
        if (term == NULL || write_one(writer, term) == FAILED) return FAILED;
        do {
            if (path->depth == 0) return DONE;
            Open *frame = &path->open[path->depth - 1];
            if (frame->kind == TUPLE) {
                if (frame->at < frame->size - 1) {
                    term = PyTuple_GET_ITEM(frame->container, frame->at++);
                    break;
                }
                PyObject *tuple = Py_NewRef(frame->container);
                leave(path);
                term = last_of(writer, tuple);
                break;
            }
            if (frame->kind == LIST && !write_run(writer, frame)) return FAILED;
            term = next_element(path);
            if (term == NULL) {
                if (frame->size < 0) return FAILED;
                if (frame->kind == LIST && write_raw(writer, "j", 1) < 0) return FAILED;
                leave(path);
            }
        } while (term == NULL);
    }
}
