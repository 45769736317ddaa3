/* The codec's common cases in C: a twin of pure.py, which stays the definition. Layer: etf, pure.
 *
 * Each function does what the one of the same name in Python does, for input that is right, shallow and made
 * of what most messages are made of. Whatever else comes up (damage, limits, depth, compression, local funs,
 * subclasses, maps that no dict can hold, any error at all) ends in NULL, and the public function then calls
 * its namesake in pure.py with the same arguments, which begins anew and alone decides what the result or
 * the error is. So there are no error texts here, no second opinion about rules, and no way to differ in
 * one. Tags and types that are rare but have no elements go to their reader in readers.py or their writer in
 * writers.py, and the caches of names, atoms and pids are the ones there.
 *
 * Inside, a function that fails returns NULL or -1, with or without an exception set.
 *
 * Trust: nobody's lengths. `take` and `spend` come before every read and every allocation: the elements
 * declared by all containers together are never more than the bytes of the input, nor than the limit, so an
 * input can make this allocate only in proportion to its size. Recursion ends at RECURSION.
 *
 * Threads: everything runs under the GIL, and no lock protects the caches; a free-threaded build turns the
 * GIL on when it imports this. Readers and writers in Python, and memory allocation, may let other code run
 * in between. It may write to the input but not resize it, which is held as a buffer, and each length counts
 * as it was when it was checked; a list or dict that changes under its encoder is noticed. All state is in
 * the module object, so each interpreter has its own.
 *
 * Not here: encode with compression, normalise, the text syntax.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* See tags.py. */
enum {
    VERSION = 131,
    NEW_FLOAT_EXT = 70,
    NEW_PID_EXT = 88,
    SMALL_INTEGER_EXT = 97,
    INTEGER_EXT = 98,
    SMALL_TUPLE_EXT = 104,
    LARGE_TUPLE_EXT = 105,
    NIL_EXT = 106,
    STRING_EXT = 107,
    LIST_EXT = 108,
    BINARY_EXT = 109,
    SMALL_BIG_EXT = 110,
    MAP_EXT = 116,
    SMALL_ATOM_UTF8_EXT = 119,
};

enum {
    RECURSION = 64,             /* as in decoder.py and encoder.py; under 20 KiB of stack */
    FEW_KEYS = 100,             /* MAX_COLLISIONS of maps.py: fewer keys cannot be too many that collide */
    LARGE_PART = 64 * 1024,     /* as in writers.py */
    MAX_TUPLE_ARITY = (1 << 24) - 1,
    MAX_STRING = 0xFFFF,
    MAX_LEAF = 2048,            /* what readers.py may need to see: an export of two atoms of 1020 bytes */
    SMALL_TERM = 512,           /* bytes of an encoded term that need no memory but the stack's */
};

/* What this module uses of the package; see `imports`. */
typedef struct {
    PyObject *decode, *decode_prefix, *decode_bare, *encode, *encode_bare, *encode_parts;
    PyObject *default_limits;
    PyObject *leaf_readers, *read_atoms, *read_pids;
    PyObject *leaf_writers, *written_atoms;
    PyObject *make_map, *check_keys, *exact_types;
    PyObject *atom_type, *improper_list_type;
} State;

static State *state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

/* Have pure.py do it, unless something like KeyboardInterrupt is on its way. */
static PyObject *hand_over(PyObject *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
        PyErr_Clear();
    }
    return PyObject_Vectorcall(function, args, (size_t)nargs, kwnames);
}

/* --- decoding -------------------------------------------------------------------------------------- */

typedef struct {
    State *state;
    const uint8_t *data;
    Py_ssize_t pos, size;
    Py_ssize_t budget;          /* elements that may still be declared */
} Reader;

static PyObject *read_term(Reader *reader, int depth);

/* Go past that many bytes and return where they begin, or NULL if there are fewer. */
static const uint8_t *take(Reader *reader, int64_t size)
{
    if (size > reader->size - reader->pos) return NULL;
    const uint8_t *bytes = reader->data + reader->pos;
    reader->pos += (Py_ssize_t)size;
    return bytes;
}

/* Walk._spend, and the check of Walk._open that each element has a byte, for all containers together. */
static bool spend(Reader *reader, int64_t count)
{
    if (count > reader->budget) return false;
    reader->budget -= (Py_ssize_t)count;
    return true;
}

static uint32_t uint_of(const uint8_t *bytes, int width)
{
    uint32_t value = 0;
    for (int i = 0; i < width; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* Read a length field of so many bytes, -1 if it is cut off. It is nothing to rely on before `take` or
 * `spend` has found it small enough; after that it fits a Py_ssize_t. */
static int64_t take_length(Reader *reader, int width)
{
    const uint8_t *field = take(reader, width);
    return field == NULL ? -1 : (int64_t)uint_of(field, width);
}

/* Any reader of readers.py. It sees as much of the input as a term without elements needs at most, large
 * integers and bitstrings excepted: those it finds cut off, and the whole term is for pure.py. */
static PyObject *read_leaf(Reader *reader, int tag)
{
    PyObject *term = NULL, *number = NULL, *head = NULL, *pair = NULL;
    Py_ssize_t left = reader->size - reader->pos;

    number = PyLong_FromLong(tag);
    if (number == NULL) goto exit;
    PyObject *function = PyDict_GetItemWithError(reader->state->leaf_readers, number);
    if (function == NULL) goto exit;
    head = PyBytes_FromStringAndSize((const char *)reader->data + reader->pos, Py_MIN(left, MAX_LEAF));
    if (head == NULL) goto exit;
    pair = PyObject_CallFunction(function, "Oii", head, 0, 0);
    if (pair == NULL || !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) goto exit;
    Py_ssize_t used = PyLong_AsSsize_t(PyTuple_GET_ITEM(pair, 1));
    if (used >= 0 && take(reader, used) != NULL) {
        term = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    }
exit:
    Py_XDECREF(number);
    Py_XDECREF(head);
    Py_XDECREF(pair);
    return term;
}

/* Look the term in the next bytes up; if it is new, its reader makes it and enters it. */
static PyObject *read_cached(Reader *reader, PyObject *cache, Py_ssize_t size, int tag)
{
    if (size > reader->size - reader->pos) return NULL;
    PyObject *key = PyBytes_FromStringAndSize((const char *)reader->data + reader->pos, size);
    if (key == NULL) return NULL;
    PyObject *known = Py_XNewRef(PyDict_GetItemWithError(cache, key));
    Py_DECREF(key);
    if (known != NULL) {
        reader->pos += size;
        return known;
    }
    return PyErr_Occurred() ? NULL : read_leaf(reader, tag);
}

/* readers.read_small_atom_utf8 */
static PyObject *read_small_atom_utf8(Reader *reader)
{
    if (reader->pos >= reader->size) return NULL;
    Py_ssize_t size = 1 + reader->data[reader->pos];
    return read_cached(reader, reader->state->read_atoms, size, SMALL_ATOM_UTF8_EXT);
}

/* readers.read_new_pid */
static PyObject *read_new_pid(Reader *reader)
{
    if (reader->size - reader->pos < 2) return NULL;
    const uint8_t *name = reader->data + reader->pos;
    if (name[0] != SMALL_ATOM_UTF8_EXT) return read_leaf(reader, NEW_PID_EXT);
    return read_cached(reader, reader->state->read_pids, 14 + name[1], NEW_PID_EXT);
}

/* readers.read_small_big */
static PyObject *read_small_big(Reader *reader)
{
    Py_ssize_t start = reader->pos;
    int64_t size = take_length(reader, 1);
    const uint8_t *sign = take(reader, 1);
    if (size < 0 || sign == NULL) return NULL;
    uint64_t magnitude = 0;
    if (size <= 8) {
        const uint8_t *bytes = take(reader, size);
        if (bytes == NULL) return NULL;
        for (int64_t i = 0; i < size; i++) {
            magnitude |= (uint64_t)bytes[i] << (8 * i);
        }
    }
    if (size > 8 || magnitude > INT64_MAX) {
        reader->pos = start;
        return read_leaf(reader, SMALL_BIG_EXT);
    }
    return PyLong_FromLongLong(*sign ? -(int64_t)magnitude : (int64_t)magnitude);
}

/* readers.read_new_float */
static PyObject *read_new_float(Reader *reader)
{
    const uint8_t *bytes = take(reader, 8);
    double value = bytes == NULL ? NAN : PyFloat_Unpack8((const char *)bytes, 0);
    return isfinite(value) ? PyFloat_FromDouble(value) : NULL;
}

/* readers.read_binary */
static PyObject *read_binary(Reader *reader)
{
    int64_t size = take_length(reader, 4);
    const uint8_t *bytes = size < 0 ? NULL : take(reader, size);
    return bytes == NULL ? NULL : PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
}

/* readers.read_string, and what Walk._step spends on it */
static PyObject *read_string(Reader *reader)
{
    int64_t size = take_length(reader, 2);
    const uint8_t *bytes = size < 0 ? NULL : take(reader, size);
    PyObject *list = bytes == NULL || !spend(reader, size) ? NULL : PyList_New((Py_ssize_t)size);
    for (Py_ssize_t i = 0; list != NULL && i < size; i++) {
        PyList_SET_ITEM(list, i, PyLong_FromLong(bytes[i]));  /* small integers always exist */
    }
    return list;
}

/* Hide a container from gc.get_objects() until it is full: a hole in it is nothing for Python code. */
static PyObject *hidden(PyObject *container)
{
    if (container != NULL) {
        PyObject_GC_UnTrack(container);
    }
    return container;
}

/* decoder._read_small_tuple, decoder._read_large_tuple; -1 for a count that is cut off */
static PyObject *read_tuple(Reader *reader, int64_t count, int depth)
{
    if (count < 0 || depth <= 0 || !spend(reader, count)) return NULL;
    if (count == 0) return PyTuple_New(0);  /* shared by all */
    PyObject *result = NULL, *tuple = hidden(PyTuple_New((Py_ssize_t)count));
    if (tuple == NULL) goto exit;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = read_term(reader, depth - 1);
        if (item == NULL) goto exit;
        PyTuple_SET_ITEM(tuple, i, item);
    }
    PyObject_GC_Track(tuple);
    result = Py_NewRef(tuple);
exit:
    Py_XDECREF(tuple);
    return result;
}

/* decoder._read_list: a list in pieces is for Walk. */
static PyObject *read_list(Reader *reader, int depth)
{
    PyObject *result = NULL, *list = NULL, *elements = NULL, *tail = NULL;
    int64_t count = take_length(reader, 4);

    if (count < 0 || depth <= 0 || !spend(reader, count)) goto exit;
    list = hidden(PyList_New((Py_ssize_t)count));
    if (list == NULL) goto exit;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = read_term(reader, depth - 1);
        if (item == NULL) goto exit;
        PyList_SET_ITEM(list, i, item);
    }
    PyObject_GC_Track(list);
    if (reader->pos >= reader->size) goto exit;
    uint8_t tag = reader->data[reader->pos];
    if (tag == NIL_EXT) {
        reader->pos++;
        result = Py_NewRef(list);
    }
    else if (count > 0 && tag != LIST_EXT && tag != STRING_EXT) {
        tail = read_term(reader, depth - 1);
        elements = tail == NULL ? NULL : PyList_AsTuple(list);
        if (elements != NULL) {
            result = PyObject_CallFunctionObjArgs(
                reader->state->improper_list_type, elements, tail, NULL);
        }
    }
exit:
    Py_XDECREF(list);
    Py_XDECREF(elements);
    Py_XDECREF(tail);
    return result;
}

/* Whether maps.make_map puts a key of this type into a dict without a closer look. */
static bool is_plain_key(State *state, PyObject *key, int64_t count)
{
    if (PyBytes_CheckExact(key) || PyBool_Check(key) || key == Py_None) return true;
    if (PyLong_CheckExact(key) || PyFloat_CheckExact(key)) return count <= FEW_KEYS;
    return (PyObject *)Py_TYPE(key) == state->atom_type;
}

/* decoder._read_map, maps.make_map */
static PyObject *read_map(Reader *reader, int depth)
{
    PyObject *map = NULL, *keys = NULL, *values = NULL;
    int64_t count = take_length(reader, 4);
    bool plain = true;

    if (count < 0 || depth <= 0 || !spend(reader, count) || !spend(reader, count)) goto exit;
    keys = hidden(PyList_New((Py_ssize_t)count));
    values = hidden(PyList_New((Py_ssize_t)count));
    if (keys == NULL || values == NULL) goto exit;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = read_term(reader, depth - 1);
        if (key == NULL) goto exit;
        PyList_SET_ITEM(keys, i, key);
        PyObject *value = read_term(reader, depth - 1);
        if (value == NULL) goto exit;
        PyList_SET_ITEM(values, i, value);
        plain = plain && is_plain_key(reader->state, key, count);
    }
    if (plain) {
        map = PyDict_New();
        for (Py_ssize_t i = 0; map != NULL && i < count; i++) {
            if (PyDict_SetItem(map, PyList_GET_ITEM(keys, i), PyList_GET_ITEM(values, i)) < 0) {
                Py_CLEAR(map);
            }
        }
        if (map == NULL || PyDict_GET_SIZE(map) == count) goto exit;
        Py_CLEAR(map);  /* 1, 1.0 and true are one key to a dict */
    }
    PyObject_GC_Track(keys);
    PyObject_GC_Track(values);
    map = PyObject_CallFunctionObjArgs(reader->state->make_map, keys, values, NULL);
exit:
    Py_XDECREF(keys);
    Py_XDECREF(values);
    return map;
}

/* decoder._READERS */
static PyObject *read_term(Reader *reader, int depth)
{
    const uint8_t *tag = take(reader, 1), *bytes;

    if (tag == NULL) return NULL;
    switch (*tag) {
    case SMALL_INTEGER_EXT:
        bytes = take(reader, 1);
        return bytes == NULL ? NULL : PyLong_FromLong(bytes[0]);
    case INTEGER_EXT:
        bytes = take(reader, 4);
        return bytes == NULL ? NULL : PyLong_FromLong((int32_t)uint_of(bytes, 4));
    case SMALL_BIG_EXT:
        return read_small_big(reader);
    case NEW_FLOAT_EXT:
        return read_new_float(reader);
    case SMALL_ATOM_UTF8_EXT:
        return read_small_atom_utf8(reader);
    case BINARY_EXT:
        return read_binary(reader);
    case SMALL_TUPLE_EXT:
        return read_tuple(reader, take_length(reader, 1), depth);
    case LARGE_TUPLE_EXT:
        return read_tuple(reader, take_length(reader, 4), depth);
    case NIL_EXT:
        return PyList_New(0);
    case STRING_EXT:
        return read_string(reader);
    case LIST_EXT:
        return read_list(reader, depth);
    case MAP_EXT:
        return read_map(reader, depth);
    case NEW_PID_EXT:
        return read_new_pid(reader);
    default:
        return read_leaf(reader, *tag);
    }
}

/* One field of limits.Limits, -1 with an exception for what is no size. */
static Py_ssize_t limit_of(PyObject *limits, const char *field)
{
    PyObject *value = PyObject_GetAttrString(limits, field);
    Py_ssize_t limit = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return limit;
}

typedef enum { WHOLE, PREFIX, BARE } Form;

/* pure._guarded, pure._read_prefix, decoder.read_term: NULL where it is not for us. */
static PyObject *decode_from(State *state, PyObject *data, Py_ssize_t pos, PyObject *limits, Form form)
{
    PyObject *result = NULL, *term = NULL;
    Py_buffer view = {0};

    if (!PyBytes_CheckExact(data) && !PyByteArray_CheckExact(data) && !PyMemoryView_Check(data)) goto exit;
    if (PyObject_GetBuffer(data, &view, PyBUF_ND | PyBUF_FORMAT) < 0 || pos > view.len) goto exit;
    if (view.format == NULL || strcmp(view.format, "B") != 0) goto exit;
    Py_ssize_t elements = limit_of(limits, "elements");
    Py_ssize_t depth = elements < 0 ? -1 : limit_of(limits, "depth");
    if (depth < 0) goto exit;
    Reader reader = {state, view.buf, pos, view.len, Py_MIN(elements, view.len - pos)};
    if (form != BARE) {
        const uint8_t *version = take(&reader, 1);
        if (version == NULL || *version != VERSION) goto exit;
    }
    term = read_term(&reader, (int)Py_MIN(depth, RECURSION));
    if (term == NULL || (form == WHOLE && reader.pos != reader.size)) goto exit;
    result = form == WHOLE ? Py_NewRef(term) : Py_BuildValue("On", term, reader.pos);
exit:
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    Py_XDECREF(term);
    return result;
}

/* The limits among the arguments, borrowed; NULL where the call is not of the usual form. */
static PyObject *limits_among(State *state, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0) return state->default_limits;
    bool usual = PyTuple_GET_SIZE(kwnames) == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "limits") == 0;
    return usual ? args[nargs] : NULL;
}

/* pure.decode */
static PyObject *decode(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *limits = limits_among(state, args, nargs, kwnames);
    PyObject *term = nargs == 1 && limits != NULL ? decode_from(state, args[0], 0, limits, WHOLE) : NULL;
    return term != NULL ? term : hand_over(state->decode, args, nargs, kwnames);
}

/* pure.decode_prefix */
static PyObject *decode_prefix(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *limits = limits_among(state, args, nargs, kwnames);
    PyObject *pair = nargs == 1 && limits != NULL ? decode_from(state, args[0], 0, limits, PREFIX) : NULL;
    return pair != NULL ? pair : hand_over(state->decode_prefix, args, nargs, kwnames);
}

/* pure.decode_bare */
static PyObject *decode_bare(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *limits = limits_among(state, args, nargs, kwnames), *pair = NULL;
    if (limits != NULL && (nargs == 1 || (nargs == 2 && PyLong_CheckExact(args[1])))) {
        Py_ssize_t offset = nargs == 2 ? PyLong_AsSsize_t(args[1]) : 0;
        pair = offset < 0 ? NULL : decode_from(state, args[0], offset, limits, BARE);
    }
    return pair != NULL ? pair : hand_over(state->decode_bare, args, nargs, kwnames);
}

/* --- encoding -------------------------------------------------------------------------------------- */

/* The bytes so far, in `small` or, when there are more, in the object they will be returned as. */
typedef struct {
    State *state;
    PyObject *parts;            /* encode_parts: the list of finished parts; else NULL */
    PyObject *object;           /* bytes, or NULL while `small` is enough */
    uint8_t *data;
    Py_ssize_t size, room;
    uint8_t small[SMALL_TERM];
} Writer;

static int write_term(Writer *writer, PyObject *term, int depth);

static void begin(Writer *writer)
{
    writer->object = NULL;
    writer->data = writer->small;
    writer->size = 0;
    writer->room = SMALL_TERM;
}

/* Add that many bytes and return where they go, or NULL.
 *
 * With `parts`, 64 KiB at once are a part of its own, which `write_part` knows how to do for an object;
 * what else grows so large (strings, integers) is for pure.py. */
static uint8_t *reserve(Writer *writer, Py_ssize_t more)
{
    if (writer->parts != NULL && more >= LARGE_PART) return NULL;
    if (more > writer->room - writer->size) {
        if (more > PY_SSIZE_T_MAX / 2 - writer->size) return NULL;
        Py_ssize_t room = Py_MAX(writer->size + more, writer->size * 2);
        if (writer->object != NULL) {
            if (_PyBytes_Resize(&writer->object, room) < 0) return NULL;
        }
        else {
            writer->object = PyBytes_FromStringAndSize(NULL, room);
            if (writer->object == NULL) return NULL;
            memcpy(PyBytes_AS_STRING(writer->object), writer->small, (size_t)writer->size);
        }
        writer->data = (uint8_t *)PyBytes_AS_STRING(writer->object);
        writer->room = room;
    }
    uint8_t *to = writer->data + writer->size;
    writer->size += more;
    return to;
}

/* Give the bytes so far away as an object, and be ready for the next part. */
static PyObject *finish(Writer *writer)
{
    PyObject *result = writer->object;
    if (result == NULL) {
        result = PyBytes_FromStringAndSize((const char *)writer->small, writer->size);
    }
    else {
        _PyBytes_Resize(&result, writer->size);
    }
    begin(writer);
    return result;
}

static int write_raw(Writer *writer, const void *bytes, Py_ssize_t size)
{
    uint8_t *to = reserve(writer, size);
    if (to == NULL) return -1;
    memcpy(to, bytes, (size_t)size);
    return 0;
}

/* A tag and a length of 1, 2 or 4 bytes, and room for that many more bytes: where those go, or NULL. */
static uint8_t *write_head(Writer *writer, int tag, uint64_t length, int width, Py_ssize_t more)
{
    if (length >> (8 * width)) return NULL;
    uint8_t *to = reserve(writer, 1 + width + more);
    if (to == NULL) return NULL;
    *to++ = (uint8_t)tag;
    for (int i = width - 1; i >= 0; i--) {
        *to++ = (uint8_t)(length >> (8 * i));
    }
    return to;
}

static int append_run(Writer *writer)
{
    PyObject *run = finish(writer);
    int failed = run == NULL ? -1 : PyList_Append(writer->parts, run);
    Py_XDECREF(run);
    return failed;
}

/* What a writer of writers.py passes to `write`: copied, or a part of its own in encode_parts. */
static int write_part(Writer *writer, PyObject *part)
{
    Py_buffer view;
    int failed;

    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0) return -1;
    if (writer->parts != NULL && view.len >= LARGE_PART) {
        failed = append_run(writer) < 0 ? -1 : PyList_Append(writer->parts, part);
    }
    else {
        failed = write_raw(writer, view.buf, view.len);
    }
    PyBuffer_Release(&view);
    return failed;
}

/* Any writer of writers.py; a value of any other type is for pure.py. */
static int write_leaf(Writer *writer, PyObject *term)
{
    PyObject *parts = NULL, *append = NULL, *done = NULL;
    int failed = -1;

    PyObject *function = PyDict_GetItemWithError(writer->state->leaf_writers, (PyObject *)Py_TYPE(term));
    if (function == NULL) goto exit;
    parts = PyList_New(0);
    append = parts == NULL ? NULL : PyObject_GetAttrString(parts, "append");
    done = append == NULL ? NULL : PyObject_CallFunctionObjArgs(function, term, append, NULL);
    failed = done == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; failed == 0 && i < PyList_GET_SIZE(parts); i++) {
        failed = write_part(writer, PyList_GET_ITEM(parts, i));
    }
exit:
    Py_XDECREF(parts);
    Py_XDECREF(append);
    Py_XDECREF(done);
    return failed;
}

/* writers.write_int */
static int write_int(Writer *writer, PyObject *term)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(term, &overflow);

    if (overflow != 0) return write_leaf(writer, term);
    if (0 <= value && value <= 255) {
        return write_head(writer, SMALL_INTEGER_EXT, value, 1, 0) == NULL ? -1 : 0;
    }
    if (INT32_MIN <= value && value <= INT32_MAX) {
        return write_head(writer, INTEGER_EXT, (uint32_t)value, 4, 0) == NULL ? -1 : 0;
    }
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    int size = 0;
    while (size < 8 && magnitude >> (8 * size)) {
        size++;
    }
    uint8_t *to = write_head(writer, SMALL_BIG_EXT, size, 1, 1 + size);
    if (to == NULL) return -1;
    *to++ = value < 0;
    for (int i = 0; i < size; i++) {
        *to++ = (uint8_t)(magnitude >> (8 * i));
    }
    return 0;
}

/* writers.write_float */
static int write_float(Writer *writer, PyObject *term)
{
    double value = PyFloat_AS_DOUBLE(term);
    uint8_t *to = isfinite(value) ? reserve(writer, 9) : NULL;
    if (to == NULL) return -1;
    *to++ = NEW_FLOAT_EXT;
    return PyFloat_Pack8(value, (char *)to, 0);
}

/* writers.write_atom */
static int write_atom(Writer *writer, PyObject *term)
{
    PyObject *known = Py_XNewRef(PyDict_GetItemWithError(writer->state->written_atoms, term));
    if (known == NULL) return PyErr_Occurred() ? -1 : write_leaf(writer, term);
    int failed = write_raw(writer, PyBytes_AS_STRING(known), PyBytes_GET_SIZE(known));
    Py_DECREF(known);
    return failed;
}

/* writers.write_bytes */
static int write_bytes(Writer *writer, PyObject *term)
{
    Py_ssize_t size = PyBytes_GET_SIZE(term);
    bool large = size >= LARGE_PART;
    uint8_t *to = write_head(writer, BINARY_EXT, size, 4, large ? 0 : size);
    if (to == NULL) return -1;
    if (large) return write_part(writer, term);
    memcpy(to, PyBytes_AS_STRING(term), (size_t)size);
    return 0;
}

/* writers.write_str */
static int write_str(Writer *writer, PyObject *term)
{
    PyObject *utf8 = PyUnicode_AsUTF8String(term);
    int failed = utf8 == NULL ? -1 : write_bytes(writer, utf8);
    Py_XDECREF(utf8);
    return failed;
}

/* encoder._write_tuple, encoder._tuple_head */
static int write_tuple(Writer *writer, PyObject *term, int depth)
{
    Py_ssize_t arity = PyTuple_GET_SIZE(term);
    bool small = arity < 256;

    if (depth <= 0 || arity > MAX_TUPLE_ARITY) return -1;
    if (write_head(writer, small ? SMALL_TUPLE_EXT : LARGE_TUPLE_EXT, arity, small ? 1 : 4, 0) == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < arity; i++) {
        if (write_term(writer, PyTuple_GET_ITEM(term, i), depth - 1) < 0) return -1;
    }
    return 0;
}

/* Whether encoder.string_bytes makes a string of the list: 1, 0, or -1 to leave it to pure.py, which knows
 * what to do with IntEnum and the like. */
static int is_string(PyObject *list)
{
    Py_ssize_t size = PyList_GET_SIZE(list);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (!PyLong_CheckExact(item)) return PyLong_Check(item) && !PyBool_Check(item) ? -1 : 0;
        int overflow;
        long value = PyLong_AsLongAndOverflow(item, &overflow);
        if (overflow != 0 || value < 0 || value > 255) return 0;
    }
    return size <= MAX_STRING;
}

/* encoder._write_list */
static int write_list(Writer *writer, PyObject *term, int depth)
{
    Py_ssize_t size = PyList_GET_SIZE(term);

    if (depth <= 0) return -1;
    if (size == 0) return write_raw(writer, "j", 1);
    int string = is_string(term);
    uint8_t *to = string < 0 ? NULL : string
        ? write_head(writer, STRING_EXT, size, 2, size) : write_head(writer, LIST_EXT, size, 4, 0);
    if (to == NULL) return -1;
    for (Py_ssize_t i = 0; i < size; i++) {
        if (PyList_GET_SIZE(term) != size) return -1;
        if (string) {
            to[i] = (uint8_t)PyLong_AsLong(PyList_GET_ITEM(term, i));
            continue;
        }
        PyObject *item = Py_NewRef(PyList_GET_ITEM(term, i));
        int failed = write_term(writer, item, depth - 1);
        Py_DECREF(item);
        if (failed < 0) return -1;
    }
    return string ? 0 : write_raw(writer, "j", 1);
}

/* encoder._write_improper */
static int write_improper(Writer *writer, PyObject *term, int depth)
{
    PyObject *elements = NULL, *tail = NULL;
    int failed = -1;

    if (depth <= 0) goto exit;
    elements = PyObject_GetAttrString(term, "elements");
    if (elements == NULL || !PyTuple_CheckExact(elements)) goto exit;
    tail = PyObject_GetAttrString(term, "tail");
    if (tail == NULL) goto exit;
    Py_ssize_t size = PyTuple_GET_SIZE(elements);
    failed = write_head(writer, LIST_EXT, size, 4, 0) == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; failed == 0 && i < size; i++) {
        failed = write_term(writer, PyTuple_GET_ITEM(elements, i), depth - 1);
    }
    if (failed == 0) {
        failed = write_term(writer, tail, depth - 1);
    }
exit:
    Py_XDECREF(elements);
    Py_XDECREF(tail);
    return failed;
}

/* encoder.check_keys */
static int check_keys(State *state, PyObject *map)
{
    Py_ssize_t at = 0;
    PyObject *key;
    bool binaries = false, texts = false, others = false;

    while (PyDict_Next(map, &at, &key, NULL)) {
        if (PyBytes_CheckExact(key)) {
            binaries = true;
        }
        else if (PyUnicode_CheckExact(key)) {
            texts = true;
        }
        else if (PySet_Contains(state->exact_types, (PyObject *)Py_TYPE(key)) != 1) {
            others = true;
        }
    }
    if (!others && !(binaries && texts)) return 0;
    PyObject *done = PyErr_Occurred() ? NULL : PyObject_CallOneArg(state->check_keys, map);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* encoder._write_map, for a dict */
static int write_map(Writer *writer, PyObject *term, int depth)
{
    Py_ssize_t at = 0, size = PyDict_GET_SIZE(term), written = 0;
    PyObject *key, *value;

    if (depth <= 0 || check_keys(writer->state, term) < 0) return -1;
    if (write_head(writer, MAP_EXT, size, 4, 0) == NULL) return -1;
    while (PyDict_Next(term, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        bool done = write_term(writer, key, depth - 1) == 0 && write_term(writer, value, depth - 1) == 0;
        Py_DECREF(key);
        Py_DECREF(value);
        if (!done || PyDict_GET_SIZE(term) != size) return -1;
        written++;
    }
    return written == size ? 0 : -1;
}

/* encoder._WRITERS */
static int write_term(Writer *writer, PyObject *term, int depth)
{
    PyTypeObject *type = Py_TYPE(term);

    if (type == &PyBytes_Type) return write_bytes(writer, term);
    if (type == &PyLong_Type) return write_int(writer, term);
    if (type == &PyTuple_Type) return write_tuple(writer, term, depth);
    if ((PyObject *)type == writer->state->atom_type) return write_atom(writer, term);
    if (type == &PyList_Type) return write_list(writer, term, depth);
    if (type == &PyUnicode_Type) return write_str(writer, term);
    if (type == &PyDict_Type) return write_map(writer, term, depth);
    if (type == &PyFloat_Type) return write_float(writer, term);
    if (term == Py_None) return write_raw(writer, "w\3nil", 5);
    if (type == &PyBool_Type) {
        return term == Py_True ? write_raw(writer, "w\4true", 6) : write_raw(writer, "w\5false", 7);
    }
    if ((PyObject *)type == writer->state->improper_list_type) return write_improper(writer, term, depth);
    return write_leaf(writer, term);
}

/* encoder.write_term, joined: NULL where the term is not for us. */
static PyObject *encode_joined(State *state, PyObject *term, bool versioned)
{
    Writer writer = {.state = state};
    PyObject *result = NULL;
    static const uint8_t version = VERSION;

    begin(&writer);
    if (versioned && write_raw(&writer, &version, 1) < 0) goto exit;
    if (write_term(&writer, term, RECURSION) == 0) {
        result = finish(&writer);
    }
exit:
    Py_XDECREF(writer.object);
    return result;
}

/* pure.encode */
static PyObject *encode(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *data = nargs == 1 && kwnames == NULL ? encode_joined(state, args[0], true) : NULL;
    return data != NULL ? data : hand_over(state->encode, args, nargs, kwnames);
}

/* pure.encode_bare */
static PyObject *encode_bare(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *data = nargs == 1 && kwnames == NULL ? encode_joined(state, args[0], false) : NULL;
    return data != NULL ? data : hand_over(state->encode_bare, args, nargs, kwnames);
}

/* pure.encode_parts */
static PyObject *encode_parts(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    Writer writer = {.state = state};
    PyObject *result = NULL;

    begin(&writer);
    if (nargs != 1 || kwnames != NULL) goto exit;
    writer.parts = PyList_New(0);
    if (writer.parts == NULL || write_term(&writer, args[0], RECURSION) < 0) goto exit;
    if (writer.size == 0 || append_run(&writer) == 0) {
        result = Py_NewRef(writer.parts);
    }
exit:
    Py_XDECREF(writer.object);
    Py_XDECREF(writer.parts);
    return result != NULL ? result : hand_over(state->encode_parts, args, nargs, kwnames);
}

/* --- the module ------------------------------------------------------------------------------------ */

static const struct {
    const char *module, *name;
    size_t field;
} imports[] = {
    {"pyglyn.etf.pure", "decode", offsetof(State, decode)},
    {"pyglyn.etf.pure", "decode_prefix", offsetof(State, decode_prefix)},
    {"pyglyn.etf.pure", "decode_bare", offsetof(State, decode_bare)},
    {"pyglyn.etf.pure", "encode", offsetof(State, encode)},
    {"pyglyn.etf.pure", "encode_bare", offsetof(State, encode_bare)},
    {"pyglyn.etf.pure", "encode_parts", offsetof(State, encode_parts)},
    {"pyglyn.etf.limits", "DEFAULT_LIMITS", offsetof(State, default_limits)},
    {"pyglyn.etf.readers", "LEAF_READERS", offsetof(State, leaf_readers)},
    {"pyglyn.etf.readers", "_atoms", offsetof(State, read_atoms)},
    {"pyglyn.etf.readers", "_pids", offsetof(State, read_pids)},
    {"pyglyn.etf.writers", "LEAF_WRITERS", offsetof(State, leaf_writers)},
    {"pyglyn.etf.writers", "_atoms", offsetof(State, written_atoms)},
    {"pyglyn.etf.maps", "make_map", offsetof(State, make_map)},
    {"pyglyn.etf.encoder", "check_keys", offsetof(State, check_keys)},
    {"pyglyn.etf.encoder", "_EXACT", offsetof(State, exact_types)},
    {"pyglyn.etf.terms", "Atom", offsetof(State, atom_type)},
    {"pyglyn.etf.terms", "ImproperList", offsetof(State, improper_list_type)},
};

static PyObject **field_of(PyObject *module, size_t index)
{
    return (PyObject **)((char *)PyModule_GetState(module) + imports[index].field);
}

static int module_exec(PyObject *module)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        PyObject *from = PyImport_ImportModule(imports[i].module);
        if (from == NULL) return -1;
        *field_of(module, i) = PyObject_GetAttrString(from, imports[i].name);
        Py_DECREF(from);
        if (*field_of(module, i) == NULL) return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_VISIT(*field_of(module, i));
    }
    return 0;
}

static int module_clear(PyObject *module)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_CLEAR(*field_of(module, i));
    }
    return 0;
}

#define FUNCTION(name, signature) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS, \
     #name signature "\n--\n\nThe same as pyglyn.etf.pure." #name ", faster."}

static PyMethodDef methods[] = {
    FUNCTION(decode, "(data, *, limits=...)"),
    FUNCTION(decode_prefix, "(data, *, limits=...)"),
    FUNCTION(decode_bare, "(data, offset=0, *, limits=...)"),
    FUNCTION(encode, "(term, *, compressed=0)"),
    FUNCTION(encode_bare, "(term)"),
    FUNCTION(encode_parts, "(term)"),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.etf._speedups",
    .m_doc = "The codec's common cases in C; see pyglyn.etf.pure, the definition.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
