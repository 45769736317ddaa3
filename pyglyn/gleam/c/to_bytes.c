/* Values to encoded terms, without the terms where a node needs none: the bytes are those that the codec would write of the
 * term that the plan makes. */

#include "plans.h"

enum { FAILED = -1, DONE = 0 };

/* By way of a term. */
static int write_made(Writer *writer, PyObject *term)
{
    int failed = term == NULL ? FAILED : write_term(writer, term);
    Py_XDECREF(term);
    return failed;
}

/* A tag and a length of 32 bits, and room for that many more bytes: where those go, or NULL. */
static inline uint8_t *write_length(Writer *writer, int tag, Py_ssize_t length, Py_ssize_t more)
{
    uint8_t *to = length > (Py_ssize_t)UINT32_MAX ? NULL : reserve(writer, 5 + more);
    if (to == NULL) return NULL;
    to[0] = (uint8_t)tag;
    to[1] = (uint8_t)(length >> 24);
    to[2] = (uint8_t)(length >> 16);
    to[3] = (uint8_t)(length >> 8);
    to[4] = (uint8_t)length;
    return to + 5;
}

static inline int write_head(Writer *writer, const Head *head)
{
    Py_ssize_t size = PyBytes_GET_SIZE(head->kept);
    uint8_t *to = reserve(writer, size);
    if (to == NULL) return FAILED;
    memcpy(to, PyBytes_AS_STRING(head->kept), (size_t)size);
    return DONE;
}

/* --- plain values ---------------------------------------------------------------------------------- */

static inline int write_text(Writer *writer, PyObject *value)
{
    if (!PyUnicode_CheckExact(value)) return FAILED;
    if (!PyUnicode_IS_COMPACT_ASCII(value)) return write_term(writer, value);
    Py_ssize_t size = PyUnicode_GET_LENGTH(value);
    uint8_t *to = write_length(writer, BINARY_EXT, size, size);
    if (to == NULL) return FAILED;
    memcpy(to, PyUnicode_1BYTE_DATA(value), (size_t)size);
    return DONE;
}

static inline int write_native(Plan *plan, Writer *writer, PyObject *value)
{
    uint64_t magnitude;
    bool negative;
    if ((PyObject *)Py_TYPE(value) != plan->first) return FAILED;
    bool small = plan->first == (PyObject *)&PyLong_Type && small_integer(value, &magnitude, &negative);
    if (!small || magnitude > UINT8_MAX || negative) return write_term(writer, value);
    uint8_t *to = reserve(writer, 2);
    if (to == NULL) return FAILED;
    to[0] = SMALL_INTEGER_EXT;
    to[1] = (uint8_t)magnitude;
    return DONE;
}

/* --- collections ----------------------------------------------------------------------------------- */

/* Whether an element may be an integer: a list of such may be written as a string, which its terms decide. */
static bool may_be_integer(Plan *inner, PyObject *element)
{
    switch (inner->kind) {
    case P_UNION_OUT:
    case P_BY_CLASS: {
        PyObject *found = PyDict_GetItemWithError(inner->first, (PyObject *)Py_TYPE(element));
        return found == NULL || found == (PyObject *)inner || may_be_integer((Plan *)found, element);
    }
    case P_NATIVE:
    case P_AS_IT_IS:
    case P_CALL:
    case P_OPTION_OUT:
        return inner->kind != P_OPTION_OUT;
    default:
        return false;
    }
}

static int write_list(Plans *plans, Plan *plan, Writer *writer, PyObject *list)
{
    Plan *inner = node_of(plan, 0);
    if (!PyList_CheckExact(list)) return FAILED;
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (size == 0) return write_raw(writer, "j", 1);
    if (inner->kind == P_NATIVE) {
        for (Py_ssize_t i = 0; i < size; i++) {
            if ((PyObject *)Py_TYPE(PyList_GET_ITEM(list, i)) != inner->first) return FAILED;
        }
        return write_term(writer, list);
    }
    if (inner->kind == P_AS_IT_IS) return write_term(writer, list);
    if (may_be_integer(inner, PyList_GET_ITEM(list, 0))) return write_made(writer, run_plan(plans, plan, list));
    if (PyErr_Occurred() || write_length(writer, LIST_EXT, size, 0) == NULL) return FAILED;
    for (Py_ssize_t i = 0; i < size; i++) {
        if (PyList_GET_SIZE(list) != size) return FAILED;
        PyObject *item = Py_NewRef(PyList_GET_ITEM(list, i));
        int failed = write_plan(plans, inner, writer, item);
        Py_DECREF(item);
        if (failed < 0) return FAILED;
    }
    return PyList_GET_SIZE(list) == size ? write_raw(writer, "j", 1) : FAILED;
}

static int write_tuple(Plans *plans, Plan *plan, Writer *writer, PyObject *tuple)
{
    Py_ssize_t size = PyTuple_GET_SIZE(plan->nodes);
    if (!PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != size || size > UINT8_MAX) return FAILED;
    const uint8_t head[] = {SMALL_TUPLE_EXT, (uint8_t)size};
    int failed = write_raw(writer, head, sizeof(head));
    for (Py_ssize_t i = 0; failed == DONE && i < size; i++) {
        failed = write_plan(plans, node_of(plan, i), writer, PyTuple_GET_ITEM(tuple, i));
    }
    return failed;
}

/* --- custom types ---------------------------------------------------------------------------------- */

enum { NONE_HEAD, SOME_HEAD };

static int write_option(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    if (plan->head_count != 2) return FAILED;
    if (value == Py_None) return write_head(writer, &plan->heads[NONE_HEAD]);
    int failed = write_head(writer, &plan->heads[SOME_HEAD]);
    return failed < 0 ? FAILED : write_plan(plans, node_of(plan, 0), writer, value);
}

static int write_class(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->nodes);
    if ((PyObject *)Py_TYPE(value) != plan->first || plan->head_count < 1) return FAILED;
    int failed = write_head(writer, plan->heads);
    for (Py_ssize_t i = 0; failed == DONE && i < count; i++) {
        PyObject *field = plan->at[i] >= 0
            ? Py_XNewRef(*(PyObject **)((char *)value + plan->at[i]))
            : PyObject_GetAttr(value, PyTuple_GET_ITEM(plan->names, i));
        failed = field == NULL ? FAILED : write_plan(plans, node_of(plan, i), writer, field);
        Py_XDECREF(field);
    }
    return failed;
}

static int write_union(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    PyObject *found = PyDict_GetItemWithError(plan->first, (PyObject *)Py_TYPE(value));
    return found == NULL ? FAILED : write_plan(plans, (Plan *)found, writer, value);
}

static int write_by_class(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    Plan *found = plan_of_class(plans, plan, value);
    int failed = found == NULL ? FAILED : write_plan(plans, found, writer, value);
    Py_XDECREF(found);
    return failed;
}

/* --- writing --------------------------------------------------------------------------------------- */

static int write_deep(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    switch (plan->kind) {
    case P_LIST:
        return write_list(plans, plan, writer, value);
    case P_TUPLE:
        return write_tuple(plans, plan, writer, value);
    case P_OPTION_OUT:
        return write_option(plans, plan, writer, value);
    case P_UNION_OUT:
        return write_union(plans, plan, writer, value);
    case P_BY_CLASS:
        return write_by_class(plans, plan, writer, value);
    case P_CLASS_OUT:
        return write_class(plans, plan, writer, value);
    default:
        return FAILED;
    }
}

int write_plan(Plans *plans, Plan *plan, Writer *writer, PyObject *value)
{
    switch (plan->kind) {
    case P_AS_IT_IS:
        return write_term(writer, value);
    case P_NATIVE:
        return write_native(plan, writer, value);
    case P_TEXT_OUT:
        return write_text(writer, value);
    case P_FLOAT_OUT:
        return PyFloat_CheckExact(value) ? write_term(writer, value) : FAILED;
    case P_CALL:
        return write_made(writer, PyObject_CallOneArg(plan->first, value));
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in a Gleam value")) return FAILED;
    int failed = write_deep(plans, plan, writer, value);
    Py_LeaveRecursiveCall();
    return failed;
}
