/* Encoded terms to values, without the terms where a node needs none.
 *
 * What is opened is counted as the Reader counts it: elements from its budget, and one more around what is within. A
 * sub-term of any kind is read by it, below so many. What was read waits on its stack, and it lets go what is left there;
 * so memory is taken for elements that were read. The walk recurses by the depth of the type that the term has to follow,
 * within Python's own limit.
 */

#include "plans.h"

/* --- steps ----------------------------------------------------------------------------------------- */

static inline Py_ssize_t left(const Reader *reader)
{
    return reader->size - reader->pos;
}

/* Go into a container of so many elements, of which some were read; see terms_in.open_frame. `max_depth` is how much
 * deeper it may become. */
static inline bool go_in(Reader *reader, int64_t count, int64_t read)
{
    if (count - read > left(reader) || count > reader->budget || reader->max_depth < 1) return false;
    reader->budget -= (Py_ssize_t)count;
    reader->max_depth--;
    return true;
}

static inline void go_out(Reader *reader)
{
    reader->max_depth++;
}

static inline bool goes_on_with(const Reader *reader, PyObject *encoded)
{
    Py_ssize_t size = PyBytes_GET_SIZE(encoded);
    return left(reader) >= size && memcmp(reader->data + reader->pos, PyBytes_AS_STRING(encoded), (size_t)size) == 0;
}

/* Go past what a term with one of these heads begins with, or return -1. */
static inline Py_ssize_t pass_head(const Plan *plan, Reader *reader)
{
    for (Py_ssize_t i = 0; i < plan->head_count; i++) {
        if (!goes_on_with(reader, plan->heads[i].kept)) continue;
        reader->pos += PyBytes_GET_SIZE(plan->heads[i].kept);
        return i;
    }
    return -1;
}

/* Any term, which the plan takes from here. */
static PyObject *by_term(Plans *plans, Plan *plan, Reader *reader)
{
    PyObject *term = read_term(reader);
    if (term == NULL) return NULL;
    bool held = let_gc(reader);  /* hooks are Python code */
    PyObject *made = run_plan(plans, plan, term);
    hold_gc_again(reader, held);
    Py_DECREF(term);
    return made;
}

/* --- values ---------------------------------------------------------------------------------------- */

static PyObject *read_text(Reader *reader)
{
    const uint8_t *tag = reader->data + reader->pos;
    if (left(reader) < 5 || *tag != BINARY_EXT || left(reader) - 5 < (Py_ssize_t)u32_of(tag + 1)) return NULL;
    Py_ssize_t size = (Py_ssize_t)u32_of(tag + 1);
    reader->pos += 5 + size;
    return PyUnicode_DecodeUTF8((const char *)tag + 5, size, NULL);
}

static PyObject *read_native(Plan *plan, Reader *reader)
{
    if (plan->first == (PyObject *)&PyLong_Type && left(reader) >= 5) {
        const uint8_t *tag = reader->data + reader->pos;
        if (*tag == SMALL_INTEGER_EXT) {
            reader->pos += 2;
            return Py_NewRef(reader->state->bytes_of[tag[1]]);
        }
        if (*tag == INTEGER_EXT) {
            reader->pos += 5;
            return integer_of(reader->state, (int32_t)u32_of(tag + 1));
        }
    }
    PyObject *term = read_term(reader);
    if (term != NULL && (PyObject *)Py_TYPE(term) != plan->first) {
        Py_CLEAR(term);
    }
    return term;
}

/* Lists whose elements are terms: the one that was read is nobody else's. */
static PyObject *read_terms(Plan *inner, Reader *reader)
{
    PyObject *list = read_term(reader);
    bool right = list != NULL && PyList_CheckExact(list);
    for (Py_ssize_t i = 0; right && inner->kind == P_NATIVE && i < PyList_GET_SIZE(list); i++) {
        right = (PyObject *)Py_TYPE(PyList_GET_ITEM(list, i)) == inner->first;
    }
    if (!right) {
        Py_CLEAR(list);
    }
    return list;
}

/* Read as many values onto the stack as there are nodes. */
static bool read_fields(Plans *plans, Plan *plan, Reader *reader)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->nodes);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = read_plan(plans, node_of(plan, i), reader);
        if (value == NULL || !push(&reader->stack, value)) return false;
    }
    return true;
}

static PyObject *read_list(Plans *plans, Plan *plan, Reader *reader)
{
    Plan *inner = node_of(plan, 0);
    const uint8_t *tag = reader->data + reader->pos;
    if (inner->kind == P_AS_IT_IS || inner->kind == P_NATIVE) return read_terms(inner, reader);
    if (left(reader) < 1) return NULL;
    if (*tag == NIL_EXT) {
        reader->pos++;
        return PyList_New(0);
    }
    if (*tag != LIST_EXT || left(reader) < 5) return NULL;
    Py_ssize_t base = reader->stack.top - reader->stack.items, count = (Py_ssize_t)u32_of(tag + 1);
    reader->pos += 5;
    if (!go_in(reader, count, 0)) return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = read_plan(plans, inner, reader);
        if (value == NULL || !push(&reader->stack, value)) return NULL;
    }
    if (left(reader) < 1 || reader->data[reader->pos] != NIL_EXT) return NULL;
    reader->pos++;
    go_out(reader);
    PyObject *list = make_list(reader->stack.items + base, count);
    if (list != NULL) {
        reader->stack.top = reader->stack.items + base;
    }
    return list;
}

static PyObject *read_tuple(Plans *plans, Plan *plan, Reader *reader)
{
    Py_ssize_t base = reader->stack.top - reader->stack.items, count = PyTuple_GET_SIZE(plan->nodes);
    const uint8_t *tag = reader->data + reader->pos;
    if (left(reader) < 2 || *tag != SMALL_TUPLE_EXT || tag[1] != count) return NULL;
    reader->pos += 2;
    if (!go_in(reader, count, 0) || !read_fields(plans, plan, reader)) return NULL;
    go_out(reader);
    PyObject *tuple = make_tuple(reader->stack.items + base, count, true);
    if (tuple != NULL) {
        reader->stack.top = reader->stack.items + base;
    }
    return tuple;
}

/* Maps with keys that are one key only where they are one term; others become terms first. */
static PyObject *read_dict(Plans *plans, Plan *plan, Reader *reader)
{
    const uint8_t *tag = reader->data + reader->pos;
    Plan *key_plan = node_of(plan, 0);
    bool texts = key_plan->kind == P_TEXT_IN || (key_plan->kind == P_NATIVE && key_plan->first == (PyObject *)&PyBytes_Type);
    if (!texts) return by_term(plans, plan, reader);
    if (left(reader) < 5 || *tag != MAP_EXT) return NULL;
    int64_t count = u32_of(tag + 1);
    reader->pos += 5;
    if (!go_in(reader, 2 * count, 0)) return NULL;
    PyObject *made = PyDict_New();
    if (made == NULL || !push(&reader->stack, made)) return NULL;
    for (int64_t i = 0; i < count; i++) {
        PyObject *key = read_plan(plans, key_plan, reader);
        PyObject *value = key == NULL ? NULL : read_plan(plans, node_of(plan, 1), reader);
        int failed = value == NULL ? -1 : PyDict_SetItem(made, key, value);
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed < 0) return NULL;
    }
    go_out(reader);
    if (PyDict_GET_SIZE(made) != count) return NULL;
    reader->stack.top--;
    return made;
}

/* --- custom types ---------------------------------------------------------------------------------- */

enum { NONE_HEAD, SOME_HEAD };

static PyObject *read_option(Plans *plans, Plan *plan, Reader *reader)
{
    Py_ssize_t head = pass_head(plan, reader);
    if (head == NONE_HEAD) return Py_NewRef(Py_None);
    if (head != SOME_HEAD || !go_in(reader, 2, 1)) return NULL;
    PyObject *made = read_plan(plans, node_of(plan, 0), reader);
    go_out(reader);
    return made;
}

static PyObject *read_class(Plans *plans, Plan *plan, Reader *reader)
{
    Py_ssize_t base = reader->stack.top - reader->stack.items, count = PyTuple_GET_SIZE(plan->nodes);
    if (pass_head(plan, reader) < 0) return NULL;
    if (count > 0) {
        if (!go_in(reader, count + 1, 1) || !read_fields(plans, plan, reader)) return NULL;
        go_out(reader);
    }
    reader->stack.top = reader->stack.items + base;
    if (plan->order == NULL) return make_instance(plan, reader->stack.top);
    bool held = let_gc(reader);
    PyObject *made = make_instance(plan, reader->stack.top);
    hold_gc_again(reader, held);
    return made;
}

/* The type of the terms that begin with a tag, NULL where that is for those who read it. */
static PyTypeObject *type_behind(int tag)
{
    switch (tag) {
    case BINARY_EXT:
        return &PyBytes_Type;
    case SMALL_INTEGER_EXT:
    case INTEGER_EXT:
    case SMALL_BIG_EXT:
    case LARGE_BIG_EXT:
        return &PyLong_Type;
    case NEW_FLOAT_EXT:
        return &PyFloat_Type;
    case NIL_EXT:
    case LIST_EXT:
    case STRING_EXT:
        return &PyList_Type;
    case MAP_EXT:
        return &PyDict_Type;
    default:
        return NULL;
    }
}

static PyObject *read_union(Plans *plans, Plan *plan, Reader *reader)
{
    Py_ssize_t begin = reader->pos, head = pass_head(plan, reader);
    reader->pos = begin;
    if (head >= 0) return read_plan(plans, plan->heads[head].node, reader);
    if (left(reader) < 1 || reader->data[begin] == SMALL_TUPLE_EXT) return NULL;
    PyTypeObject *type = type_behind(reader->data[begin]);
    if (type == NULL) return by_term(plans, plan, reader);
    PyObject *found = PyDict_GetItemWithError(plan->third, (PyObject *)type);
    return found == NULL ? NULL : read_plan(plans, (Plan *)found, reader);
}

/* --- reading --------------------------------------------------------------------------------------- */

static PyObject *read_deep(Plans *plans, Plan *plan, Reader *reader)
{
    switch (plan->kind) {
    case P_LIST:
        return read_list(plans, plan, reader);
    case P_TUPLE:
        return read_tuple(plans, plan, reader);
    case P_DICT_IN:
        return read_dict(plans, plan, reader);
    case P_OPTION_IN:
        return read_option(plans, plan, reader);
    case P_UNION_IN:
        return read_union(plans, plan, reader);
    case P_CLASS_IN:
        return read_class(plans, plan, reader);
    default:
        return NULL;
    }
}

PyObject *read_plan(Plans *plans, Plan *plan, Reader *reader)
{
    switch (plan->kind) {
    case P_AS_IT_IS:
        return read_term(reader);
    case P_NATIVE:
        return read_native(plan, reader);
    case P_TEXT_IN:
        return read_text(reader);
    case P_ENUM_IN:
    case P_CALL:
        return by_term(plans, plan, reader);
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in a Gleam value")) return NULL;
    PyObject *made = read_deep(plans, plan, reader);
    Py_LeaveRecursiveCall();
    return made;
}
