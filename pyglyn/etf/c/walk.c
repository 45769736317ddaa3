/* Walking through terms without recursion, and making containers.
 *
 * A value that contains itself is found as Brent finds cycles: going down into it, depth first, goes round and
 * round, so one of the containers around, chosen at ever larger distances, must come again; what was visited
 * until then is at most a few times what one round visits.
 */

#include "codec.h"

enum { NO_CYCLE = 64 };         /* depth up to which nobody looks for one */

/* --- objects --------------------------------------------------------------------------------------- */

void begin_stack(Stack *stack)
{
    stack->items = stack->top = stack->few;
    stack->end = stack->few + FEW_ITEMS;
}

bool more_items(Stack *stack)
{
    Py_ssize_t used = stack->top - stack->items, room = used + used / 2;
    PyObject **items = stack->items == stack->few ? NULL : stack->items;
    if (room > PY_SSIZE_T_MAX / 16) return false;
    PyObject **grown = PyMem_Realloc(items, (size_t)room * sizeof(PyObject *));
    if (grown == NULL) return false;
    if (items == NULL) {
        memcpy(grown, stack->few, (size_t)used * sizeof(PyObject *));
    }
    stack->items = grown;
    stack->top = grown + used;
    stack->end = grown + room;
    return true;
}

void drop_items(Stack *stack, PyObject **down_to)
{
    while (stack->top > down_to) {
        Py_DECREF(*--stack->top);
    }
}

void end_stack(Stack *stack)
{
    drop_items(stack, stack->items);
    if (stack->items != stack->few) {
        PyMem_Free(stack->items);
    }
}

/* --- the way into a value -------------------------------------------------------------------------- */

void begin_path(Path *path, State *state)
{
    path->state = state;
    path->open = path->few;
    path->room = FEW_OPEN;
    path->depth = 0;
    path->mark = NO_CYCLE;
}

static bool more_open(Path *path)
{
    Open *old = path->open == path->few ? NULL : path->open;
    if (path->room > PY_SSIZE_T_MAX / 256) return false;
    Open *grown = PyMem_Realloc(old, (size_t)path->room * 2 * sizeof(Open));
    if (grown == NULL) return false;
    if (old == NULL) {
        memcpy(grown, path->few, sizeof(path->few));
    }
    path->open = grown;
    path->room *= 2;
    return true;
}

bool enter(Path *path, PyObject *container, Kind kind, Py_ssize_t size)
{
    if (path->depth == path->room && !more_open(path)) return false;
    if (path->depth >= NO_CYCLE) {
        if (path->open[path->mark - 1].container == container) return false;
        if (path->depth >= 2 * path->mark) {
            path->mark = path->depth;
        }
    }
    path->open[path->depth++] = (Open){Py_NewRef(container), NULL, 0, size, 0, 0, kind};
    return true;
}

void leave(Path *path)
{
    Open *frame = &path->open[--path->depth];
    if (path->depth < path->mark && path->mark > NO_CYCLE) {
        path->mark = Py_MAX(NO_CYCLE, path->mark / 2);
    }
    Py_XDECREF(frame->held);
    Py_DECREF(frame->container);
}

void end_path(Path *path)
{
    while (path->depth > 0) {
        leave(path);
    }
    if (path->open != path->few) {
        PyMem_Free(path->open);
    }
}

/* The elements of an ImproperList, and its tail as the last one. */
static PyObject *next_improper(Open *frame, const Class *class)
{
    PyObject *elements = *slot(frame->container, class, 0), *tail = *slot(frame->container, class, 1);
    if (elements == NULL || !PyTuple_CheckExact(elements) || PyTuple_GET_SIZE(elements) != frame->size - 1) {
        frame->size = -1;
        return NULL;
    }
    if (++frame->at < frame->size) return PyTuple_GET_ITEM(elements, frame->at - 1);
    if (tail == NULL) {
        frame->size = -1;
    }
    return tail;
}

/* The keys and values of a dict in turn, or those of the entries of a TermMap. */
static PyObject *next_in_map(Open *frame)
{
    PyObject *key, *value;

    if (PyDict_GET_SIZE(frame->container) != frame->size) goto changed;
    if (frame->visited++ % 2 == 1) return frame->held;
    Py_CLEAR(frame->held);
    if (!PyDict_Next(frame->container, &frame->at, &key, &value)) {
        if (frame->visited != 2 * frame->size + 1) goto changed;
        return NULL;
    }
    if (frame->kind == ENTRIES) {
        if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != 2) goto changed;
        key = PyTuple_GET_ITEM(value, 0);
        value = PyTuple_GET_ITEM(value, 1);
    }
    frame->held = Py_NewRef(value);
    return key;
changed:
    frame->size = -1;
    return NULL;
}

PyObject *next_rare(Path *path)
{
    Open *frame = &path->open[path->depth - 1];
    if (frame->kind != IMPROPER_LIST) return next_in_map(frame);
    return frame->at == frame->size ? NULL : next_improper(frame, &path->state->improper_list);
}

/* --- maps ------------------------------------------------------------------------------------------ */

PyObject *entries_of(State *state, PyObject *map)
{
    PyObject *entries = *slot(map, &state->term_map, 0);
    return entries != NULL && PyDict_CheckExact(entries) ? entries : NULL;
}

/* Whether it is of a type of which no two values that a dict keeps apart are the same term. */
static bool is_exact(State *state, PyObject *key, int depth)
{
    PyTypeObject *type = Py_TYPE(key);
    if (type == state->atom.type || type == &PyLong_Type || type == &PyFloat_Type || type == &PyBool_Type) return true;
    if (type == state->pid.type || type == state->reference.type || type == state->port.type) return true;
    if (key == Py_None) return true;
    if (type != &PyTuple_Type || depth == 0) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); i++) {
        PyObject *item = PyTuple_GET_ITEM(key, i);
        if (!PyBytes_CheckExact(item) && !is_exact(state, item, depth - 1)) return false;
    }
    return true;
}

int check_keys(State *state, PyObject *map)
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
        else if (!is_exact(state, key, MAX_KEY_DEPTH)) {
            others = true;
        }
    }
    if (!others && !(binaries && texts)) return 0;
    PyObject *done = PyObject_CallOneArg(state->check_keys, map);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether a map of so many entries can be a dict with this key, without a look at all keys together. */
static bool fits_dict(State *state, PyObject *key, Py_ssize_t count, int depth)
{
    PyTypeObject *type = Py_TYPE(key);
    if (type == &PyBytes_Type || type == &PyBool_Type || key == Py_None) return true;
    if (type == state->atom.type || type == state->pid.type) return true;
    if (type == state->reference.type || type == state->port.type) return true;
    if (type == &PyLong_Type) {
        if (count <= MAX_COLLISIONS) return true;
        int overflow;  /* smaller ones have hashes of their own */
        long long value = PyLong_AsLongLongAndOverflow(key, &overflow);
        return overflow == 0 && -(1LL << 60) < value && value < 1LL << 60;
    }
    if (type == &PyFloat_Type) return count <= MAX_COLLISIONS;
    if (type == &PyTuple_Type && count <= MAX_COLLISIONS && depth > 0) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(key); i++) {
            if (!fits_dict(state, PyTuple_GET_ITEM(key, i), count, depth - 1)) return false;
        }
        return true;
    }
    return false;
}

PyObject *make_plain_map(State *state, PyObject **items, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!fits_dict(state, items[2 * i], count, MAX_KEY_DEPTH)) return NULL;
    }
    PyObject *map = PyDict_New();
    for (Py_ssize_t i = 0; map != NULL && i < count; i++) {
        if (PyDict_SetItem(map, items[2 * i], items[2 * i + 1]) < 0) {
            Py_CLEAR(map);
        }
    }
    if (map != NULL && PyDict_GET_SIZE(map) != count) {
        Py_CLEAR(map);  /* 1, 1.0 and true are one key to a dict */
    }
    return map;
}

PyObject *make_any_map(State *state, PyObject **items, Py_ssize_t count)
{
    PyObject *map = NULL, *keys = copied_list(items, count, 2), *values = copied_list(items + 1, count, 2);
    if (keys != NULL && values != NULL) {
        map = PyObject_CallFunctionObjArgs(state->make_map, keys, values, NULL);
    }
    Py_XDECREF(keys);
    Py_XDECREF(values);
    return map;
}

/* --- tuples and lists ------------------------------------------------------------------------------ */

PyObject *copied_list(PyObject **from, Py_ssize_t count, int step)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyList_SET_ITEM(list, i, Py_NewRef(from[i * step]));
    }
    return list;
}

PyObject *make_tuple(PyObject **items, Py_ssize_t count, bool cyclic)
{
    PyObject *tuple = PyTuple_New(count);
    if (tuple != NULL && count > 0) {
        memcpy(((PyTupleObject *)tuple)->ob_item, items, (size_t)count * sizeof(PyObject *));
        if (!cyclic) {
            PyObject_GC_UnTrack(tuple);
        }
    }
    return tuple;
}

PyObject *make_list(PyObject **items, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    if (list != NULL && count > 0) {
        memcpy(((PyListObject *)list)->ob_item, items, (size_t)count * sizeof(PyObject *));
    }
    return list;
}

PyObject *make_improper(State *state, PyObject **items, Py_ssize_t count, bool cyclic)
{
    const Class *class = &state->improper_list;
    PyObject *improper = class->type->tp_alloc(class->type, 0);
    PyObject *elements = improper == NULL ? NULL : make_tuple(items, count - 1, cyclic);
    if (elements == NULL) {
        Py_XDECREF(improper);
        return NULL;
    }
    if (!cyclic) {
        PyObject_GC_UnTrack(improper);
    }
    *slot(improper, class, 0) = elements;
    *slot(improper, class, 1) = items[count - 1];
    return improper;
}
