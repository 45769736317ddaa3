/* Bytes to terms: the twin of decoder.Walk, one step per term, and of readers.py.
 *
 * The elements of all containers under way lie one after the other in Reader.stack; a container is made when
 * its last element is there. `step` is where the tag of the present step is, and nothing of what Walk would
 * have at its beginning is changed before it has succeeded: that is what `frames_of` hands on.
 *
 * The garbage collector. It does not run while a long input is read, as nothing read becomes garbage; it does
 * while Python code runs in between. A tuple of terms that cannot change is not shown to it at all, as the
 * collector itself would decide in the end: whoever waits in a mailbox costs nothing there.
 */

#include "codec.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

enum { LONG_INPUT = 1024, HUGE_BINARY = 32 << 20, HUGE_PAGE = 2 << 20 };

static uint32_t uint_of(const uint8_t *bytes, int width)
{
    uint32_t value = 0;
    for (int i = 0; i < width; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* Go past that many bytes and return where they begin, or NULL if there are fewer. */
static inline const uint8_t *take(Reader *reader, int64_t size)
{
    if (size > reader->size - reader->pos) return NULL;
    const uint8_t *bytes = reader->data + reader->pos;
    reader->pos += (Py_ssize_t)size;
    return bytes;
}

/* Read a length field of so many bytes and what it is the length of: where that begins, or NULL. */
static const uint8_t *take_sized(Reader *reader, int width, Py_ssize_t *size)
{
    const uint8_t *field = take(reader, width);
    if (field == NULL) return NULL;
    int64_t length = uint_of(field, width);
    *size = (Py_ssize_t)length;
    return take(reader, length);
}

/* --- the garbage collector ------------------------------------------------------------------------- */

static void hold_gc(Reader *reader)
{
    reader->gc = reader->size - reader->pos >= LONG_INPUT && PyGC_Disable();
}

bool let_gc(Reader *reader)
{
    bool held = reader->gc;
    if (held) {
        PyGC_Enable();
        reader->gc = false;
    }
    return held;
}

void hold_gc_again(Reader *reader, bool held)
{
    if (held) {
        reader->gc = PyGC_Disable();
    }
}

/* --- terms without elements ------------------------------------------------------------------------ */

/* readers.read_binary, for what the C library has from the kernel anew each time: its pages are to be large ones, or most of
 * the time goes into faults. */
static PyObject *huge_binary(const uint8_t *bytes, Py_ssize_t size)
{
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    if (made == NULL) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t begin = (uintptr_t)PyBytes_AS_STRING(made), end = begin + (uintptr_t)size;
    begin = (begin + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    end &= ~(uintptr_t)(HUGE_PAGE - 1);
    (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);  /* advice */
#endif
    memcpy(PyBytes_AS_STRING(made), bytes, (size_t)size);
    return made;
}

/* Any reader of readers.py, which sees that many bytes. */
static PyObject *read_leaf(Reader *reader, int tag, Py_ssize_t size)
{
    PyObject *term = NULL, *number = NULL, *head = NULL, *pair = NULL;
    bool held = let_gc(reader);

    number = PyLong_FromLong(tag);
    if (number == NULL) goto exit;
    PyObject *function = PyDict_GetItemWithError(reader->state->leaf_readers, number);
    const uint8_t *bytes = function == NULL ? NULL : take(reader, size);
    head = bytes == NULL ? NULL : PyBytes_FromStringAndSize((const char *)bytes, size);
    if (head == NULL) goto exit;
    pair = PyObject_CallFunction(function, "Oii", head, 0, 0);
    if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        term = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    }
exit:
    Py_XDECREF(number);
    Py_XDECREF(head);
    Py_XDECREF(pair);
    hold_gc_again(reader, held);
    return term;
}

/* readers.read_small_big, readers.read_large_big */
static PyObject *read_big(Reader *reader, int width)
{
    const uint8_t *head = take(reader, width + 1);
    if (head == NULL) return NULL;
    int64_t size = uint_of(head, width);
    bool negative = head[width] != 0;
    const uint8_t *bytes = take(reader, size);
    if (bytes == NULL) return NULL;
    uint64_t magnitude = 0;
    if (size <= 8) {
        for (int64_t i = 0; i < size; i++) {
            magnitude |= (uint64_t)bytes[i] << (8 * i);
        }
        if (magnitude <= INT64_MAX) {
            return PyLong_FromLongLong(negative ? -(int64_t)magnitude : (int64_t)magnitude);
        }
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value = PyLong_FromNativeBytes(
        bytes, (size_t)size, Py_ASNATIVEBYTES_LITTLE_ENDIAN | Py_ASNATIVEBYTES_UNSIGNED_BUFFER);
#else
    PyObject *value = _PyLong_FromByteArray(bytes, (size_t)size, 1, 0);
#endif
    if (value != NULL && negative) {
        Py_SETREF(value, PyNumber_Negative(value));
    }
    return value;
}

/* An atom behind that tag, by name, by value, or both: see `find_atom`. readers._read_name */
static bool read_atom(Reader *reader, int tag, PyObject **name, PyObject **value)
{
    Py_ssize_t size;
    bool small = tag == SMALL_ATOM_UTF8_EXT || tag == SMALL_ATOM_EXT;
    const uint8_t *bytes = take_sized(reader, small ? 1 : 2, &size);
    if (bytes == NULL) return false;
    if (tag == ATOM_EXT || tag == SMALL_ATOM_EXT) {
        Py_ssize_t at = 0;
        while (at < size && bytes[at] < 128) {
            at++;
        }
        if (at < size) {  /* Latin-1 that is not UTF-8 */
            PyObject *text = PyUnicode_DecodeLatin1((const char *)bytes, size, NULL);
            const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
            bool found = utf8 != NULL && find_atom(reader->state, (const uint8_t *)utf8, size, name, value);
            Py_XDECREF(text);
            return found;
        }
    }
    return find_atom(reader->state, bytes, size, name, value);
}

static PyObject *read_atom_value(Reader *reader, int tag)
{
    PyObject *value;
    return read_atom(reader, tag, NULL, &value) ? value : NULL;
}

/* readers.read_atom_name */
static PyObject *read_atom_name(Reader *reader)
{
    PyObject *name;
    const uint8_t *tag = take(reader, 1);
    if (tag == NULL) return NULL;
    switch (*tag) {
    case SMALL_ATOM_UTF8_EXT:
    case ATOM_UTF8_EXT:
    case SMALL_ATOM_EXT:
    case ATOM_EXT:
        return read_atom(reader, *tag, &name, NULL) ? name : NULL;
    default:
        return NULL;
    }
}

/* readers.read_bit_binary */
static PyObject *read_bit_binary(Reader *reader)
{
    if (reader->size - reader->pos < 5) return NULL;
    const uint8_t *head = reader->data + reader->pos;
    int64_t size = (int64_t)u32_of(head) + 5;
    if (size > reader->size - reader->pos) return NULL;
    return read_leaf(reader, BIT_BINARY_EXT, (Py_ssize_t)size);
}

/* readers.read_string, and what Walk._step spends on it */
static PyObject *read_string(Reader *reader)
{
    Py_ssize_t size;
    const uint8_t *bytes = take_sized(reader, 2, &size);
    if (bytes == NULL || size > reader->budget) return NULL;
    PyObject *list = PyList_New(size);
    for (Py_ssize_t i = 0; list != NULL && i < size; i++) {
        PyList_SET_ITEM(list, i, Py_NewRef(reader->state->bytes_of[bytes[i]]));
    }
    reader->budget -= size;
    return list;
}

/* --- identifiers ----------------------------------------------------------------------------------- */

enum { MAX_OLD_CREATION = 3, MAX_OLD_REFERENCE = (1 << 18) - 1 };

/* readers.read_new_pid, readers.read_pid */
static PyObject *read_pid(Reader *reader, bool old)
{
    PyObject *pid = NULL, *node = read_atom_name(reader);
    const uint8_t *fields = node == NULL ? NULL : take(reader, old ? 9 : 12);
    if (fields != NULL) {
        uint32_t creation = old ? fields[8] : u32_of(fields + 8);
        if (!old || creation <= MAX_OLD_CREATION) {
            pid = find_pid(reader->state, node, u32_of(fields), u32_of(fields + 4), creation);
        }
    }
    Py_XDECREF(node);
    return pid;
}

/* An instance that holds text, numbers and tuples of numbers only, which no cycle can go through. Takes the
 * references to the fields; any of them may be NULL for an error. */
static PyObject *make_plain(const Class *class, PyObject *first, PyObject *second, PyObject *third)
{
    PyObject *object = first == NULL || second == NULL || third == NULL
        ? NULL : class->type->tp_alloc(class->type, 0);
    if (object == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_XDECREF(third);
        return NULL;
    }
    PyObject_GC_UnTrack(object);
    *slot(object, class, 0) = first;
    *slot(object, class, 1) = second;
    *slot(object, class, 2) = third;
    return object;
}

/* readers.read_v4_port, readers.read_new_port, readers.read_port */
static PyObject *read_port(Reader *reader, int tag)
{
    PyObject *node = read_atom_name(reader);
    int wide = tag == V4_PORT_EXT ? 8 : 4, narrow = tag == PORT_EXT ? 1 : 4;
    const uint8_t *fields = node == NULL ? NULL : take(reader, wide + narrow);
    uint32_t creation = fields == NULL ? 0 : uint_of(fields + wide, narrow);
    if (fields == NULL || (tag == PORT_EXT && creation > MAX_OLD_CREATION)) {
        Py_XDECREF(node);
        return NULL;
    }
    uint64_t id = wide == 8 ? u64_of(fields) : u32_of(fields);
    return make_plain(
        &reader->state->port, node, PyLong_FromUnsignedLongLong(id),
        find_creation(reader->state, creation));
}

static PyObject *words_of(const uint8_t *bytes, int count)
{
    PyObject *words = PyTuple_New(count);
    if (words == NULL) return NULL;
    PyObject_GC_UnTrack(words);
    for (int i = 0; i < count; i++) {
        PyObject *word = word_of(u32_of(bytes + 4 * i));
        if (word == NULL) {
            Py_DECREF(words);
            return NULL;
        }
        PyTuple_SET_ITEM(words, i, word);
    }
    return words;
}

/* readers.read_newer_reference, readers.read_new_reference, readers.read_reference */
static PyObject *read_reference(Reader *reader, int tag)
{
    uint32_t count = 1, creation;
    if (tag != REFERENCE_EXT) {
        const uint8_t *field = take(reader, 2);
        count = field == NULL ? 0 : uint_of(field, 2);
        if (count < 1 || count > MAX_REFERENCE_WORDS) return NULL;
    }
    PyObject *node = read_atom_name(reader);
    int narrow = tag == NEWER_REFERENCE_EXT ? 4 : 1, size = 4 * (int)count + narrow;
    const uint8_t *fields = node == NULL ? NULL : take(reader, size), *words;
    if (fields == NULL) goto fail;
    if (tag == REFERENCE_EXT) {
        words = fields;
        creation = fields[4];
    }
    else {
        words = fields + narrow;
        creation = uint_of(fields, narrow);
    }
    if (narrow == 1 && (creation > MAX_OLD_CREATION || u32_of(words) > MAX_OLD_REFERENCE)) goto fail;
    return make_plain(
        &reader->state->reference, node, find_creation(reader->state, creation), words_of(words, (int)count));
fail:
    Py_XDECREF(node);
    return NULL;
}

/* readers.read_export */
static PyObject *read_export(Reader *reader)
{
    PyObject *module = read_atom_name(reader);
    PyObject *function = module == NULL ? NULL : read_atom_name(reader);
    const uint8_t *arity = function == NULL ? NULL : take(reader, 2);
    if (arity == NULL || arity[0] != SMALL_INTEGER_EXT) {
        Py_XDECREF(module);
        Py_XDECREF(function);
        return NULL;
    }
    return make_plain(&reader->state->export, module, function, Py_NewRef(reader->state->bytes_of[arity[1]]));
}

/* --- local funs ------------------------------------------------------------------------------------ */

enum { FUN_HEAD = 29 };         /* size:32 arity:8 uniq:16/bytes index:32 free:32 */

/* decoder._fun_pid: go past what lies between a fun's fixed part and its free variables */
static bool pass_fun_fields(Reader *reader)
{
    PyObject *module = read_atom_name(reader);
    if (module == NULL) return false;
    Py_DECREF(module);
    for (int i = 0; i < 3; i++) {
        const uint8_t *tag = take(reader, 1);
        PyObject *field = NULL;
        if (tag == NULL) return false;
        if (i == 2) {
            field = *tag == NEW_PID_EXT || *tag == PID_EXT ? read_pid(reader, *tag == PID_EXT) : NULL;
        }
        else if (*tag == SMALL_BIG_EXT) {
            field = read_big(reader, 1);
        }
        else if (*tag == SMALL_INTEGER_EXT || *tag == INTEGER_EXT) {
            field = take(reader, *tag == INTEGER_EXT ? 4 : 1) == NULL ? NULL : Py_NewRef(Py_None);
        }
        if (field == NULL) return false;
        Py_DECREF(field);
    }
    return true;
}

/* Walk.close_fun */
static PyObject *make_fun(Reader *reader, Py_ssize_t start)
{
    PyObject *fun = NULL, *raw = NULL, *module = NULL, *uniq = NULL;
    const uint8_t *head = reader->data + start + 1;
    Py_ssize_t end = reader->pos, size = end - start - 1;

    if (u32_of(head) != size) return NULL;
    if (reader->funs > 1) return Py_NewRef(Py_None);
    reader->pos = start + 1 + FUN_HEAD;
    module = read_atom_name(reader);
    reader->pos = end;
    raw = PyBytes_FromStringAndSize((const char *)head, size);
    uniq = PyBytes_FromStringAndSize((const char *)head + 5, 16);
    if (module != NULL && raw != NULL && uniq != NULL) {
        bool held = let_gc(reader);
        fun = PyObject_CallFunction(
            reader->state->fun_type, "OOiIO", raw, module, head[4], u32_of(head + 21), uniq);
        hold_gc_again(reader, held);
    }
    Py_XDECREF(raw);
    Py_XDECREF(module);
    Py_XDECREF(uniq);
    return fun;
}

/* --- containers ------------------------------------------------------------------------------------ */

static bool more_frames(Reader *reader)
{
    Py_ssize_t room = reader->room * 2;
    Frame *frames = reader->frames == reader->few_frames ? NULL : reader->frames;
    if (room > PY_SSIZE_T_MAX / 128) return false;
    Frame *grown = PyMem_Realloc(frames, (size_t)room * sizeof(Frame));
    if (grown == NULL) return false;
    if (frames == NULL) {
        memcpy(grown, reader->few_frames, sizeof(reader->few_frames));
    }
    reader->frames = grown;
    reader->room = room;
    return true;
}

/* Walk._open, for elements that begin at the present position */
static inline bool open_frame(Reader *reader, int kind, int64_t count)
{
    if (count > reader->size - reader->pos || count > reader->budget) return false;
    if (reader->depth >= reader->max_depth) return false;
    if (reader->depth == reader->room && !more_frames(reader)) return false;
    reader->budget -= (Py_ssize_t)count;
    reader->frames[reader->depth++] = (Frame){
        reader->stack.top - reader->stack.items, (Py_ssize_t)count, reader->step, kind, false};
    return true;
}

static bool open_sized(Reader *reader, int kind, int width, int times)
{
    const uint8_t *field = take(reader, width);
    return field != NULL && open_frame(reader, kind, (int64_t)uint_of(field, width) * times);
}

/* Walk.open_fun */
static bool open_fun(Reader *reader)
{
    const uint8_t *head = take(reader, FUN_HEAD);
    if (head == NULL || !pass_fun_fields(reader)) return false;
    if (!open_frame(reader, NEW_FUN_EXT, u32_of(head + 25))) return false;
    reader->funs++;
    return true;
}

/* Walk.close_map */
static PyObject *make_map(Reader *reader, PyObject **items, Py_ssize_t count)
{
    PyObject *map = make_plain_map(reader->state, items, count);
    if (map != NULL || PyErr_Occurred()) return map;
    bool held = let_gc(reader);
    map = make_any_map(reader->state, items, count);
    hold_gc_again(reader, held);
    return map;
}

/* A container is finished: tell the one around it. */
static inline void leave_frame(Reader *reader, Frame *frame, bool cyclic)
{
    if (--reader->depth > 0) {
        Frame *outer = frame - 1;
        outer->left--;
        outer->cyclic |= cyclic;
    }
}

/* Make the finished container an element of the one around it. `moved`: its items live on in it. */
static void replace_items(Reader *reader, Frame *frame, PyObject *made, bool moved, bool cyclic)
{
    PyObject **base = reader->stack.items + frame->base;
    if (!moved) {
        drop_items(&reader->stack, base);
    }
    *base = made;
    reader->stack.top = base + 1;
    leave_frame(reader, frame, cyclic);
}

/* Walk.close_tuple, for the usual ones: not empty, not large */
static inline bool close_tuple(Reader *reader, Frame *frame)
{
    PyObject **items = reader->stack.items + frame->base;
    Py_ssize_t count = reader->stack.top - items;
    PyObject *tuple = PyTuple_New(count);
    if (tuple == NULL) return false;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, items[i]);
    }
    if (!frame->cyclic) {
        PyObject_GC_UnTrack(tuple);
    }
    *items = tuple;
    reader->stack.top = items + 1;
    leave_frame(reader, frame, frame->cyclic);
    return true;
}

typedef enum { FAILED, CLOSED, GOES_ON } Closed;

/* Walk.close_list */
static Closed close_list(Reader *reader, Frame *frame)
{
    PyObject **items = reader->stack.items + frame->base;
    if (reader->pos >= reader->size) return FAILED;
    int tag = reader->data[reader->pos];
    if (tag == LIST_EXT) {
        if (reader->size - reader->pos < 5) return FAILED;
        int64_t count = u32_of(reader->data + reader->pos + 1);
        if (count > reader->size - reader->pos - 5 || count > reader->budget) return FAILED;
        reader->budget -= (Py_ssize_t)count;
        frame->left = (Py_ssize_t)count;
        reader->pos += 5;
        return GOES_ON;
    }
    if (tag == STRING_EXT) {
        Py_ssize_t size;
        reader->pos++;
        const uint8_t *bytes = take_sized(reader, 2, &size);
        if (bytes == NULL || size > reader->budget) return FAILED;
        for (Py_ssize_t i = 0; i < size; i++) {
            if (!push(&reader->stack, Py_NewRef(reader->state->bytes_of[bytes[i]]))) return FAILED;
        }
        items = reader->stack.items + frame->base;
        reader->budget -= size;
    }
    else if (tag == NIL_EXT) {
        reader->pos++;
    }
    else if (reader->stack.top == items) {
        reader->depth--;  /* a list of no elements with a tail is that tail */
        return GOES_ON;
    }
    else {
        frame->kind = IMPROPER;
        frame->left = 1;
        return GOES_ON;
    }
    if (reader->stack.top == reader->stack.end && !more_items(&reader->stack)) return FAILED;
    items = reader->stack.items + frame->base;
    PyObject *list = make_list(items, reader->stack.top - items);
    if (list == NULL) return FAILED;
    replace_items(reader, frame, list, true, true);
    return CLOSED;
}

/* decoder._CLOSERS */
static Closed close_frame(Reader *reader)
{
    Frame *frame = &reader->frames[reader->depth - 1];
    PyObject **items = reader->stack.items + frame->base, *made;
    Py_ssize_t count = reader->stack.top - items;

    if (count == 0) {  /* a place for what is made */
        if (reader->stack.top == reader->stack.end && !more_items(&reader->stack)) return FAILED;
        items = reader->stack.items + frame->base;
    }
    switch (frame->kind) {
    case LIST_EXT:
        return close_list(reader, frame);
    case IMPROPER:
        made = make_improper(reader->state, items, count, frame->cyclic);
        break;
    case MAP_EXT:
        made = make_map(reader, items, count / 2);
        break;
    case NEW_FUN_EXT:
        made = make_fun(reader, frame->start);
        break;
    default:
        made = make_tuple(items, count, frame->cyclic);
        break;
    }
    if (made == NULL) return FAILED;
    if (frame->kind == NEW_FUN_EXT) {
        reader->funs--;
    }
    bool moved = frame->kind != MAP_EXT && frame->kind != NEW_FUN_EXT;
    bool cyclic = frame->kind == MAP_EXT || (moved && frame->cyclic);
    replace_items(reader, frame, made, moved, cyclic);
    return CLOSED;
}

/* --- the walk -------------------------------------------------------------------------------------- */

void begin_reading(Reader *reader, State *state, const uint8_t *data, Py_ssize_t pos, Py_ssize_t size)
{
    reader->state = state;
    reader->data = data;
    reader->pos = reader->step = pos;
    reader->size = size;
    reader->budget = state->default_elements;
    reader->max_depth = state->default_depth;
    reader->funs = reader->depth = 0;
    begin_stack(&reader->stack);
    reader->frames = reader->few_frames;
    reader->room = FEW_FRAMES;
    hold_gc(reader);
}

void end_reading(Reader *reader)
{
    let_gc(reader);
    end_stack(&reader->stack);
    if (reader->frames != reader->few_frames) {
        PyMem_Free(reader->frames);
    }
}

Py_ssize_t limit_of(PyObject *limits, const char *field)
{
    PyObject *value = PyObject_GetAttrString(limits, field);
    Py_ssize_t limit = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return limit;
}

bool set_limits(Reader *reader, PyObject *limits)
{
    if (limits == reader->state->default_limits) return true;
    reader->budget = limit_of(limits, "elements");
    reader->max_depth = reader->budget < 0 ? -1 : limit_of(limits, "depth");
    return reader->max_depth >= 0;
}

bool hold_input(PyObject *data, Py_buffer *view)
{
    if (PyBytes_CheckExact(data)) {
        view->buf = PyBytes_AS_STRING(data);
        view->len = PyBytes_GET_SIZE(data);
        view->obj = NULL;
        return true;
    }
    if (!PyByteArray_CheckExact(data) && !PyMemoryView_Check(data)) return false;
    if (PyObject_GetBuffer(data, view, PyBUF_ND | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return false;
    }
    if (view->format != NULL && strcmp(view->format, "B") == 0) return true;
    PyBuffer_Release(view);
    return false;
}

/* readers.read_new_float */
static inline PyObject *float_of(const uint8_t *bytes)
{
    uint64_t bits = u64_of(bytes);
    double value;
    memcpy(&value, &bits, sizeof(value));  /* as Python itself, this takes IEEE 754 for granted */
    return isfinite(value) ? PyFloat_FromDouble(value) : NULL;
}

/* Walk._step, for the tags that are rarer than those in `read_term`. NULL, or with *opened where it is a
 * container and was begun. */
static PyObject *read_rare(Reader *reader, int tag, bool *opened, bool *cyclic)
{
    switch (tag) {
    case LARGE_TUPLE_EXT:
        *opened = open_sized(reader, LARGE_TUPLE_EXT, 4, 1);
        return NULL;
    case LIST_EXT:
        *opened = open_sized(reader, LIST_EXT, 4, 1);
        return NULL;
    case MAP_EXT:
        *opened = open_sized(reader, MAP_EXT, 4, 2);
        return NULL;
    case NEW_FUN_EXT:
        *opened = open_fun(reader);
        return NULL;
    case STRING_EXT:
        *cyclic = true;
        return read_string(reader);
    case SMALL_BIG_EXT:
        return read_big(reader, 1);
    case LARGE_BIG_EXT:
        return read_big(reader, 4);
    case NEW_PID_EXT:
    case PID_EXT:
        return read_pid(reader, tag == PID_EXT);
    case NEWER_REFERENCE_EXT:
    case NEW_REFERENCE_EXT:
    case REFERENCE_EXT:
        return read_reference(reader, tag);
    case V4_PORT_EXT:
    case NEW_PORT_EXT:
    case PORT_EXT:
        return read_port(reader, tag);
    case EXPORT_EXT:
        return read_export(reader);
    case ATOM_UTF8_EXT:
    case ATOM_EXT:
    case SMALL_ATOM_EXT:
        return read_atom_value(reader, tag);
    case FLOAT_EXT:
        return read_leaf(reader, FLOAT_EXT, 31);
    case BIT_BINARY_EXT:
        return read_bit_binary(reader);
    default:
        return NULL;
    }
}

static inline bool is_number(int tag)
{
    return tag == SMALL_INTEGER_EXT || tag == INTEGER_EXT || tag == NEW_FLOAT_EXT;
}

/* Numbers with this tag that follow each other, of so many bytes: as far as there are any, and place for them. */
static inline void read_numbers(Reader *reader, Frame *frame, const int tag, const int size)
{
    State *state = reader->state;
    const uint8_t *at = reader->data + reader->pos, *const end = reader->data + reader->size;
    PyObject **top = reader->stack.top;
    Py_ssize_t most = Py_MIN(frame->left, reader->stack.end - top);
    PyObject **const stop = top + Py_MIN(most, (end - at) / size);

    while (top < stop && *at == tag) {
        PyObject *number = tag == SMALL_INTEGER_EXT ? Py_NewRef(state->bytes_of[at[1]])
            : tag == INTEGER_EXT ? integer_of(state, (int32_t)u32_of(at + 1)) : float_of(at + 1);
        if (number == NULL) break;  /* its own step is to find out why */
        *top++ = number;
        at += size;
    }
    frame->left -= top - reader->stack.top;
    reader->stack.top = top;
    reader->pos = at - reader->data;
}

static void read_run(Reader *reader, Frame *frame, int tag)
{
    switch (tag) {
    case SMALL_INTEGER_EXT:
        read_numbers(reader, frame, SMALL_INTEGER_EXT, 2);
        break;
    case INTEGER_EXT:
        read_numbers(reader, frame, INTEGER_EXT, 5);
        break;
    default:
        read_numbers(reader, frame, NEW_FLOAT_EXT, 9);
        break;
    }
}

/* Read one term; NULL where Walk has to go on at `step`. */
PyObject *read_term(Reader *reader)
{
    State *state = reader->state;
    const uint8_t *const end = reader->data + reader->size;

    for (;;) {
        const uint8_t *tag = reader->data + reader->pos, *next = NULL;
        const Py_ssize_t left = end - tag;
        PyObject *term = NULL;
        bool cyclic = false;
        reader->step = reader->pos;
        if (left < 2) {
            if (left < 1 || *tag != NIL_EXT) return NULL;  /* every other term is longer */
        }
        switch (*tag) {
        case SMALL_INTEGER_EXT:
            term = Py_NewRef(state->bytes_of[tag[1]]);
            next = tag + 2;
            break;
        case INTEGER_EXT:
            if (left < 5) return NULL;
            term = integer_of(state, (int32_t)u32_of(tag + 1));
            next = tag + 5;
            break;
        case NEW_FLOAT_EXT:
            if (left < 9) return NULL;
            term = float_of(tag + 1);
            next = tag + 9;
            break;
        case SMALL_ATOM_UTF8_EXT:
            next = tag + 2 + tag[1];
            if (next > end || !find_atom(state, tag + 2, tag[1], NULL, &term)) return NULL;
            break;
        case BINARY_EXT:
            if (left < 5 || left - 5 < (Py_ssize_t)u32_of(tag + 1)) return NULL;
            term = u32_of(tag + 1) < HUGE_BINARY
                ? PyBytes_FromStringAndSize((const char *)tag + 5, u32_of(tag + 1)) : huge_binary(tag + 5, u32_of(tag + 1));
            next = tag + 5 + u32_of(tag + 1);
            break;
        case NIL_EXT:
            cyclic = true;
            term = PyList_New(0);
            next = tag + 1;
            break;
        case SMALL_TUPLE_EXT:
            reader->pos += 2;
            if (!open_frame(reader, SMALL_TUPLE_EXT, tag[1])) return NULL;
            if (tag[1] > 0) continue;
            goto opened;
        default: {
            bool opened = false;
            reader->pos++;
            term = read_rare(reader, *tag, &opened, &cyclic);
            if (opened) goto opened;
            next = reader->data + reader->pos;
            break;
        }
        }
        if (term == NULL) return NULL;
        reader->pos = next - reader->data;
        if (reader->depth == 0) return term;
        if (!push(&reader->stack, term)) return NULL;
        Frame *frame = &reader->frames[reader->depth - 1];
        frame->cyclic |= cyclic;
        if (--frame->left > 0) {
            if (next < end && *next == *tag && is_number(*tag)) {
                read_run(reader, frame, *tag);
            }
            if (frame->left > 0) continue;
        }
    opened:
        for (;;) {
            Frame *inner = &reader->frames[reader->depth - 1];
            if (reader->depth == 0 || inner->left > 0) break;
            reader->step = reader->pos;
            if (inner->kind == SMALL_TUPLE_EXT && reader->stack.top - reader->stack.items > inner->base) {
                if (!close_tuple(reader, inner)) return NULL;
                if (reader->depth == 0) return *--reader->stack.top;
                continue;
            }
            switch (close_frame(reader)) {
            case FAILED:
                return NULL;
            case CLOSED:
                if (reader->depth == 0) return *--reader->stack.top;
                break;
            case GOES_ON:
                break;
            }
        }
    }
}

/* Per container, outermost first: (elements so far, how many are missing, kind, start), as Walk has them. */
PyObject *frames_of(Reader *reader)
{
    PyObject *frames = PyList_New(0);
    for (Py_ssize_t i = 0; frames != NULL && i < reader->depth; i++) {
        Frame *frame = &reader->frames[i];
        PyObject **items = reader->stack.items + frame->base;
        PyObject **end = i + 1 < reader->depth ? reader->stack.items + frame[1].base : reader->stack.top;
        PyObject *pair = Py_BuildValue(
            "Nnin", copied_list(items, end - items, 1), frame->left, frame->kind, frame->start);
        if (pair == NULL || PyList_Append(frames, pair) < 0) {
            Py_CLEAR(frames);
        }
        Py_XDECREF(pair);
    }
    return frames;
}
