/* Terms as the receiver would see them: the twin of normaliser._walk.
 *
 * Whatever fails here is begun anew in Python, which alone tells what is wrong.
 */

#include "codec.h"

/* Whether it is its own normal form, and can be shared as it cannot change. */
static inline bool is_plain(State *state, PyObject *term)
{
    PyTypeObject *type = Py_TYPE(term);
    if (type == &PyFloat_Type) return isfinite(PyFloat_AS_DOUBLE(term));
    return type == &PyBytes_Type || type == &PyLong_Type || type == &PyBool_Type || term == Py_None ||
        type == state->atom.type || type == state->pid.type || type == state->reference.type ||
        type == state->port.type || type == state->export.type || (PyObject *)type == state->fun_type ||
        (PyObject *)type == state->bit_string_type;
}

static bool are_plain(State *state, PyObject *const *items, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!is_plain(state, items[i])) return false;
    }
    return true;
}

/* normaliser._LEAVES; NULL also for a container, with what is to be entered. */
static PyObject *normal_leaf(State *state, PyObject *term, PyObject **container, Kind *kind, Py_ssize_t *size)
{
    PyTypeObject *type = Py_TYPE(term);

    *container = NULL;
    if (is_plain(state, term)) return Py_NewRef(term);
    if (type == &PyUnicode_Type) return PyUnicode_AsUTF8String(term);
    if (type == &PyTuple_Type) {
        *size = PyTuple_GET_SIZE(term);
        *kind = TUPLE;
        if (are_plain(state, ((PyTupleObject *)term)->ob_item, *size)) return Py_NewRef(term);
    }
    else if (type == &PyList_Type) {
        *size = PyList_GET_SIZE(term);
        *kind = LIST;
        if (are_plain(state, ((PyListObject *)term)->ob_item, *size)) return PyList_GetSlice(term, 0, *size);
    }
    else if (type == &PyDict_Type) {
        *size = PyDict_GET_SIZE(term);
        *kind = DICT;
    }
    else if (type == state->improper_list.type) {
        PyObject *elements = *slot(term, &state->improper_list, 0);
        if (elements == NULL || !PyTuple_CheckExact(elements) || PyTuple_GET_SIZE(elements) == 0) return NULL;
        *size = PyTuple_GET_SIZE(elements) + 1;
        *kind = IMPROPER_LIST;
    }
    else if (type == state->term_map.type) {
        term = entries_of(state, term);
        if (term == NULL) return NULL;
        *size = PyDict_GET_SIZE(term);
        *kind = ENTRIES;
    }
    else {
        return NULL;  /* bytearray, memoryview, subclasses, what is no term */
    }
    *container = term;
    return NULL;
}

static bool are_same(PyObject *const *items, PyObject *const *others, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (items[i] != others[i]) return false;
    }
    return true;
}

/* _Frame.build. `*moved`: whether the references of the items went into what was made. */
static PyObject *build(State *state, const Open *frame, PyObject **items, Py_ssize_t count, bool *moved)
{
    PyObject *made;

    *moved = true;
    switch (frame->kind) {
    case TUPLE:
        if (are_same(items, ((PyTupleObject *)frame->container)->ob_item, count)) {
            *moved = false;
            return Py_NewRef(frame->container);
        }
        return make_tuple(items, count, true);
    case LIST:
        return make_list(items, count);
    case IMPROPER_LIST:
        made = items[count - 1];
        if (PyList_Check(made) || Py_TYPE(made) == state->improper_list.type) return NULL;
        return make_improper(state, items, count, true);
    default:
        *moved = false;
        made = make_plain_map(state, items, count / 2);
        return made != NULL || PyErr_Occurred() ? made : make_any_map(state, items, count / 2);
    }
}

static PyObject *walk(State *state, Path *path, Stack *stack, PyObject *term)
{
    for (;;) {
        PyObject *container;
        Kind kind = TUPLE;
        Py_ssize_t size = 0;
        PyObject *made = normal_leaf(state, term, &container, &kind, &size);
        if (container != NULL) {
            if (!enter(path, container, kind, size)) return NULL;
            path->open[path->depth - 1].base = stack->top - stack->items;
        }
        else if (made == NULL || !push(stack, made)) {
            return NULL;
        }
        for (;;) {
            if (path->depth == 0) return *--stack->top;
            Open *frame = &path->open[path->depth - 1];
            term = next_element(path);
            if (term != NULL) break;
            if (frame->size < 0) return NULL;
            PyObject **items = stack->items + frame->base;
            bool moved;
            made = build(state, frame, items, stack->top - items, &moved);
            if (made == NULL) return NULL;
            if (moved) {
                stack->top = items;
            }
            else {
                drop_items(stack, items);
            }
            leave(path);
            if (!push(stack, made)) return NULL;
        }
    }
}

PyObject *normal_of(State *state, PyObject *term)
{
    Path path;
    Stack stack;

    begin_path(&path, state);
    begin_stack(&stack);
    PyObject *made = walk(state, &path, &stack, term);
    end_stack(&stack);
    end_path(&path);
    return made;
}
