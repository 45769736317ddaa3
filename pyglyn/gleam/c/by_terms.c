/* Terms to values, and values to terms: for what is a term already, or is to be one. */

#include "plans.h"

/* --- plain values and collections ------------------------------------------------------------------ */

static PyObject *text_in(PyObject *term)
{
    if (!PyBytes_CheckExact(term)) return NULL;
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(term), PyBytes_GET_SIZE(term), NULL);
}

static PyObject *text_out(PyObject *value)
{
    if (!PyUnicode_CheckExact(value)) return NULL;
    if (!PyUnicode_IS_COMPACT_ASCII(value)) return PyUnicode_AsUTF8String(value);
    return PyBytes_FromStringAndSize((const char *)PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value));
}

static PyObject *list_of(Plans *plans, Plan *inner, PyObject *list)
{
    if (!PyList_CheckExact(list)) return NULL;
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (inner->kind == P_AS_IT_IS || inner->kind == P_NATIVE) {
        for (Py_ssize_t i = 0; inner->kind == P_NATIVE && i < size; i++) {
            if ((PyObject *)Py_TYPE(PyList_GET_ITEM(list, i)) != inner->first) return NULL;
        }
        return PyList_GetSlice(list, 0, size);
    }
    PyObject *made = PyList_New(size);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);  /* nobody may see it before it is full */
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : NULL;
        PyObject *value = item == NULL ? NULL : run_plan(plans, inner, item);
        Py_XDECREF(item);
        if (value == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        PyList_SET_ITEM(made, i, value);
    }
    PyObject_GC_Track(made);
    if (PyList_GET_SIZE(list) == size) return made;
    Py_DECREF(made);
    return NULL;
}

/* A tuple of the elements from `from` on, by their nodes; the places before are left to the caller. */
static PyObject *tuple_of(Plans *plans, Plan *plan, PyObject *tuple)
{
    Py_ssize_t size = PyTuple_GET_SIZE(plan->nodes);
    if (!PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != size) return NULL;
    if (size == 0) return Py_NewRef(tuple);
    PyObject *made = PyTuple_New(size);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *value = run_plan(plans, node_of(plan, i), PyTuple_GET_ITEM(tuple, i));
        if (value == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        PyTuple_SET_ITEM(made, i, value);
    }
    PyObject_GC_Track(made);
    return made;
}

static PyObject *dict_in(Plans *plans, Plan *plan, PyObject *term)
{
    Py_ssize_t at = 0, size;
    PyObject *raw_key, *raw_value;
    if (!PyDict_CheckExact(term)) return NULL;
    size = PyDict_GET_SIZE(term);
    PyObject *made = PyDict_New();
    while (made != NULL && PyDict_GET_SIZE(term) == size && PyDict_Next(term, &at, &raw_key, &raw_value)) {
        Py_INCREF(raw_key);
        Py_INCREF(raw_value);
        PyObject *key = run_plan(plans, node_of(plan, 0), raw_key);
        PyObject *value = key == NULL ? NULL : run_plan(plans, node_of(plan, 1), raw_value);
        if (value == NULL || PyDict_SetItem(made, key, value) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
        Py_DECREF(raw_key);
        Py_DECREF(raw_value);
    }
    if (made != NULL && (PyDict_GET_SIZE(term) != size || PyDict_GET_SIZE(made) != size)) {
        Py_CLEAR(made);
    }
    return made;
}

/* --- custom types ---------------------------------------------------------------------------------- */

static PyObject *option_in(Plans *plans, Plan *plan, PyObject *term)
{
    if (term == plan->first) return Py_NewRef(Py_None);
    if (!PyTuple_CheckExact(term) || PyTuple_GET_SIZE(term) != 2) return NULL;
    if (PyTuple_GET_ITEM(term, 0) != plan->second) return NULL;
    return run_plan(plans, node_of(plan, 0), PyTuple_GET_ITEM(term, 1));
}

static PyObject *option_out(Plans *plans, Plan *plan, PyObject *value)
{
    if (value == Py_None) return Py_NewRef(plan->first);
    PyObject *inner = run_plan(plans, node_of(plan, 0), value);
    PyObject *made = inner == NULL ? NULL : PyTuple_Pack(2, plan->second, inner);
    Py_XDECREF(inner);
    return made;
}

static bool is_atom(Plans *plans, PyObject *term)
{
    return Py_TYPE(term) == plans->etf->atom.type || PyBool_Check(term) || term == Py_None;
}

static PyObject *union_in(Plans *plans, Plan *plan, PyObject *term)
{
    PyObject *found = NULL;
    if (PyTuple_CheckExact(term)) {
        if (PyTuple_GET_SIZE(term) > 0 && is_atom(plans, PyTuple_GET_ITEM(term, 0))) {
            PyObject *sizes = PyDict_GetItemWithError(plan->second, PyTuple_GET_ITEM(term, 0));
            if (sizes != NULL) {
                PyObject *size = PyLong_FromSsize_t(PyTuple_GET_SIZE(term));
                found = size == NULL ? NULL : PyDict_GetItemWithError(sizes, size);
                Py_XDECREF(size);
                return found == NULL ? NULL : run_plan(plans, (Plan *)found, term);
            }
        }
    }
    else if (is_atom(plans, term)) {
        found = PyDict_GetItemWithError(plan->first, term);
    }
    if (found == NULL && !PyErr_Occurred()) {
        found = PyDict_GetItemWithError(plan->third, (PyObject *)Py_TYPE(term));
    }
    return found == NULL ? NULL : run_plan(plans, (Plan *)found, term);
}

static PyObject *union_out(Plans *plans, Plan *plan, PyObject *value)
{
    PyObject *found = PyDict_GetItemWithError(plan->first, (PyObject *)Py_TYPE(value));
    return found == NULL ? NULL : run_plan(plans, (Plan *)found, value);
}

/* The node of a class that was not met is made, and kept, by Python; where hooks change, it forgets them. */
Plan *plan_of_class(Plans *plans, Plan *plan, PyObject *value)
{
    PyObject *class = (PyObject *)Py_TYPE(value);
    PyObject *found = Py_XNewRef(PyDict_GetItemWithError(plan->first, class));
    if (found == NULL && !PyErr_Occurred()) {
        found = PyObject_CallOneArg(plan->second, class);
    }
    if (found != NULL && !Py_IS_TYPE(found, plans->plan_type)) {
        Py_CLEAR(found);
    }
    return (Plan *)found;
}

static PyObject *by_class(Plans *plans, Plan *plan, PyObject *value)
{
    Plan *found = plan_of_class(plans, plan, value);
    PyObject *made = found == NULL ? NULL : run_plan(plans, found, value);
    Py_XDECREF(found);
    return made;
}

static PyObject *enum_in(Plans *plans, Plan *plan, PyObject *term)
{
    return is_atom(plans, term) ? Py_XNewRef(PyDict_GetItemWithError(plan->first, term)) : NULL;
}

enum { FEW_FIELDS = 12 };

PyObject *make_instance(Plan *plan, PyObject **fields)
{
    PyTypeObject *class = (PyTypeObject *)plan->first;
    Py_ssize_t count = PyTuple_GET_SIZE(plan->names);
    PyObject *made = NULL, *few[FEW_FIELDS + 1], **arguments = few;
    if (plan->order == NULL) {
        made = class->tp_alloc(class, 0);
        for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
            if (plan->at[i] >= 0) {
                *(PyObject **)((char *)made + plan->at[i]) = fields[i];
                fields[i] = NULL;
            }
            else if (PyObject_GenericSetAttr(made, PyTuple_GET_ITEM(plan->names, i), fields[i]) < 0) {
                Py_CLEAR(made);
            }
        }
        goto exit;
    }
    if (count > FEW_FIELDS) {
        arguments = PyMem_Malloc((size_t)(count + 1) * sizeof(PyObject *));
        if (arguments == NULL) goto exit;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        arguments[i + 1] = fields[plan->order[i]];
    }
    Py_ssize_t named = PyTuple_GET_SIZE(plan->keywords);
    made = PyObject_Vectorcall(
        plan->first, arguments + 1, (size_t)(count - named) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        named > 0 ? plan->keywords : NULL);
    if (arguments != few) {
        PyMem_Free(arguments);
    }
exit:
    while (count > 0) {
        Py_XDECREF(fields[--count]);
    }
    return made;
}

static PyObject *class_in(Plans *plans, Plan *plan, PyObject *term)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->nodes), done = 0;
    PyObject *few[FEW_FIELDS], **fields = few, *made = NULL, *atom = term;
    if (count > 0) {
        if (!PyTuple_CheckExact(term) || PyTuple_GET_SIZE(term) != count + 1) return NULL;
        atom = PyTuple_GET_ITEM(term, 0);
    }
    if (atom != plan->second && atom != plan->third) return NULL;
    if (count > FEW_FIELDS) {
        fields = PyMem_Malloc((size_t)count * sizeof(PyObject *));
        if (fields == NULL) return PyErr_NoMemory();
    }
    while (done < count) {
        fields[done] = run_plan(plans, node_of(plan, done), PyTuple_GET_ITEM(term, done + 1));
        if (fields[done] == NULL) break;
        done++;
    }
    if (done == count) {
        made = make_instance(plan, fields);
        done = 0;
    }
    while (done > 0) {
        Py_DECREF(fields[--done]);
    }
    if (fields != few) {
        PyMem_Free(fields);
    }
    return made;
}

static PyObject *class_out(Plans *plans, Plan *plan, PyObject *value)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->nodes);
    if ((PyObject *)Py_TYPE(value) != plan->first) return NULL;
    if (count == 0) return Py_NewRef(plan->second);
    PyObject *made = PyTuple_New(count + 1);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);
    PyTuple_SET_ITEM(made, 0, Py_NewRef(plan->second));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *field = plan->at[i] >= 0
            ? Py_XNewRef(*(PyObject **)((char *)value + plan->at[i]))
            : PyObject_GetAttr(value, PyTuple_GET_ITEM(plan->names, i));
        PyObject *term = field == NULL ? NULL : run_plan(plans, node_of(plan, i), field);
        Py_XDECREF(field);
        if (term == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        PyTuple_SET_ITEM(made, i + 1, term);
    }
    PyObject_GC_Track(made);
    return made;
}

/* --- running --------------------------------------------------------------------------------------- */

static PyObject *run_deep(Plans *plans, Plan *plan, PyObject *subject)
{
    switch (plan->kind) {
    case P_LIST:
        return list_of(plans, node_of(plan, 0), subject);
    case P_TUPLE:
        return tuple_of(plans, plan, subject);
    case P_DICT_IN:
        return dict_in(plans, plan, subject);
    case P_OPTION_IN:
        return option_in(plans, plan, subject);
    case P_OPTION_OUT:
        return option_out(plans, plan, subject);
    case P_UNION_IN:
        return union_in(plans, plan, subject);
    case P_UNION_OUT:
        return union_out(plans, plan, subject);
    case P_BY_CLASS:
        return by_class(plans, plan, subject);
    case P_CLASS_IN:
        return class_in(plans, plan, subject);
    case P_CLASS_OUT:
        return class_out(plans, plan, subject);
    default:
        return NULL;
    }
}

/* A new reference; NULL for a misfit, with or without an exception. */
PyObject *run_plan(Plans *plans, Plan *plan, PyObject *subject)
{
    switch (plan->kind) {
    case P_AS_IT_IS:
        return Py_NewRef(subject);
    case P_NATIVE:
        return (PyObject *)Py_TYPE(subject) == plan->first ? Py_NewRef(subject) : NULL;
    case P_TEXT_IN:
        return text_in(subject);
    case P_TEXT_OUT:
        return text_out(subject);
    case P_FLOAT_OUT:
        return PyFloat_CheckExact(subject) && isfinite(PyFloat_AS_DOUBLE(subject)) ? Py_NewRef(subject) : NULL;
    case P_ENUM_IN:
        return enum_in(plans, plan, subject);
    case P_CALL:
        return PyObject_CallOneArg(plan->first, subject);
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in a Gleam value")) return NULL;
    PyObject *made = run_deep(plans, plan, subject);
    Py_LeaveRecursiveCall();
    return made;
}
