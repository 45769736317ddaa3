/* Plans: the functions of decoding.py and encoding.py for values that fit, in C. Layer: gleam, pure.
 *
 * A plan is a tree of nodes, or a graph for a recursive type, made by plans.py beside the Python function for the
 * same type. Called with a term or value it gives what that function would return; or MISFIT, whatever the reason,
 * and then that function is called, which alone says what is wrong. What is not here (sets, enums on their way
 * out, hooks of users) is a node that calls a Python function; what one raises is a misfit like any other.
 *
 * An instance of a class whose `__init__` does nothing but assign (see `plans.assigns_only`) is made without it.
 *
 * Threads: under the GIL, see codec.h; a list that a hook changes meanwhile is noticed.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifndef Py_T_OBJECT_EX
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

/* What a node does, and what it needs for it. */
#define KINDS(X) \
    X(UNMADE)       /* nothing yet */ \
    X(AS_IT_IS) \
    X(NATIVE)       /* first: the type */ \
    X(TEXT_IN) \
    X(TEXT_OUT) \
    X(FLOAT_OUT) \
    X(LIST)         /* nodes: the element */ \
    X(TUPLE)        /* nodes: the elements */ \
    X(DICT_IN)      /* nodes: key and value */ \
    X(OPTION_IN)    /* first: the atom none, second: some; nodes: the inner */ \
    X(OPTION_OUT)   /* the same */ \
    X(UNION_IN)     /* first: {atom: node}, second: {atom: {size: node}}, third: {type of term: node} */ \
    X(UNION_OUT)    /* first: {class: node} */ \
    X(ENUM_IN)      /* first: {atom: member} */ \
    X(CLASS_IN)     /* first: the class, second and third: its atoms; nodes and names: the fields */ \
    X(CLASS_OUT)    /* first: the class, second: its atom; nodes and names: the fields */ \
    X(BY_CLASS)     /* first: {class: node} of those met so far; second: gives the node of a class */ \
    X(CALL)         /* first: the function */

#define AS_ENUM(name) name,
typedef enum { KINDS(AS_ENUM) KIND_COUNT } Kind;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Kind kind;
    PyObject *first, *second, *third;
    PyObject *nodes;            /* a tuple of plans */
    PyObject *names;            /* a tuple of str: the attributes */
    PyObject *keywords;         /* a tuple of str: the last arguments of the class, by keyword */
    Py_ssize_t *order;          /* which field is which argument of the class; NULL: no call is needed */
    Py_ssize_t *at;             /* where the slot of each attribute is, -1 for one that is in no slot */
} Plan;

typedef struct {
    PyTypeObject *plan_type;
    PyTypeObject *atom_type;
    PyObject *misfit;
} State;

static struct PyModuleDef definition;

static State *state_of(Plan *plan)
{
    return (State *)PyModule_GetState(PyType_GetModule(Py_TYPE(plan)));
}

static PyObject *run(State *state, Plan *plan, PyObject *subject);

static Plan *node_of(Plan *plan, Py_ssize_t i)
{
    return (Plan *)PyTuple_GET_ITEM(plan->nodes, i);
}

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

static PyObject *list_of(State *state, Plan *inner, PyObject *list)
{
    if (!PyList_CheckExact(list)) return NULL;
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (inner->kind == AS_IT_IS || inner->kind == NATIVE) {
        for (Py_ssize_t i = 0; inner->kind == NATIVE && i < size; i++) {
            if ((PyObject *)Py_TYPE(PyList_GET_ITEM(list, i)) != inner->first) return NULL;
        }
        return PyList_GetSlice(list, 0, size);
    }
    PyObject *made = PyList_New(size);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);  /* nobody may see it before it is full */
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : NULL;
        PyObject *value = item == NULL ? NULL : run(state, inner, item);
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
static PyObject *tuple_of(State *state, Plan *plan, PyObject *tuple)
{
    Py_ssize_t size = PyTuple_GET_SIZE(plan->nodes);
    if (!PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != size) return NULL;
    if (size == 0) return Py_NewRef(tuple);
    PyObject *made = PyTuple_New(size);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *value = run(state, node_of(plan, i), PyTuple_GET_ITEM(tuple, i));
        if (value == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        PyTuple_SET_ITEM(made, i, value);
    }
    PyObject_GC_Track(made);
    return made;
}

static PyObject *dict_in(State *state, Plan *plan, PyObject *term)
{
    Py_ssize_t at = 0, size;
    PyObject *raw_key, *raw_value;
    if (!PyDict_CheckExact(term)) return NULL;
    size = PyDict_GET_SIZE(term);
    PyObject *made = PyDict_New();
    while (made != NULL && PyDict_GET_SIZE(term) == size && PyDict_Next(term, &at, &raw_key, &raw_value)) {
        Py_INCREF(raw_key);
        Py_INCREF(raw_value);
        PyObject *key = run(state, node_of(plan, 0), raw_key);
        PyObject *value = key == NULL ? NULL : run(state, node_of(plan, 1), raw_value);
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

static PyObject *option_in(State *state, Plan *plan, PyObject *term)
{
    if (term == plan->first) return Py_NewRef(Py_None);
    if (!PyTuple_CheckExact(term) || PyTuple_GET_SIZE(term) != 2) return NULL;
    if (PyTuple_GET_ITEM(term, 0) != plan->second) return NULL;
    return run(state, node_of(plan, 0), PyTuple_GET_ITEM(term, 1));
}

static PyObject *option_out(State *state, Plan *plan, PyObject *value)
{
    if (value == Py_None) return Py_NewRef(plan->first);
    PyObject *inner = run(state, node_of(plan, 0), value);
    PyObject *made = inner == NULL ? NULL : PyTuple_Pack(2, plan->second, inner);
    Py_XDECREF(inner);
    return made;
}

static bool is_atom(State *state, PyObject *term)
{
    return Py_TYPE(term) == state->atom_type || PyBool_Check(term) || term == Py_None;
}

static PyObject *union_in(State *state, Plan *plan, PyObject *term)
{
    PyObject *found = NULL;
    if (PyTuple_CheckExact(term)) {
        if (PyTuple_GET_SIZE(term) > 0 && is_atom(state, PyTuple_GET_ITEM(term, 0))) {
            PyObject *sizes = PyDict_GetItemWithError(plan->second, PyTuple_GET_ITEM(term, 0));
            if (sizes != NULL) {
                PyObject *size = PyLong_FromSsize_t(PyTuple_GET_SIZE(term));
                found = size == NULL ? NULL : PyDict_GetItemWithError(sizes, size);
                Py_XDECREF(size);
                return found == NULL ? NULL : run(state, (Plan *)found, term);
            }
        }
    }
    else if (is_atom(state, term)) {
        found = PyDict_GetItemWithError(plan->first, term);
    }
    if (found == NULL && !PyErr_Occurred()) {
        found = PyDict_GetItemWithError(plan->third, (PyObject *)Py_TYPE(term));
    }
    return found == NULL ? NULL : run(state, (Plan *)found, term);
}

static PyObject *union_out(State *state, Plan *plan, PyObject *value)
{
    PyObject *found = PyDict_GetItemWithError(plan->first, (PyObject *)Py_TYPE(value));
    return found == NULL ? NULL : run(state, (Plan *)found, value);
}

/* The node of a class that was not met is made, and kept, by Python; where hooks change, it forgets them. */
static PyObject *by_class(State *state, Plan *plan, PyObject *value)
{
    PyObject *class = (PyObject *)Py_TYPE(value);
    PyObject *found = Py_XNewRef(PyDict_GetItemWithError(plan->first, class));
    if (found == NULL && !PyErr_Occurred()) {
        found = PyObject_CallOneArg(plan->second, class);
    }
    PyObject *made = found != NULL && Py_IS_TYPE(found, Py_TYPE(plan)) ? run(state, (Plan *)found, value) : NULL;
    Py_XDECREF(found);
    return made;
}

static PyObject *enum_in(State *state, Plan *plan, PyObject *term)
{
    return is_atom(state, term) ? Py_XNewRef(PyDict_GetItemWithError(plan->first, term)) : NULL;
}

enum { FEW_FIELDS = 12 };

/* Make an instance with these fields; takes the references, which are left NULL. */
static PyObject *instance_of(Plan *plan, PyObject **fields, Py_ssize_t count)
{
    PyTypeObject *class = (PyTypeObject *)plan->first;
    if (plan->order == NULL) {
        PyObject *made = class->tp_alloc(class, 0);
        for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
            if (plan->at[i] >= 0) {
                *(PyObject **)((char *)made + plan->at[i]) = fields[i];
                fields[i] = NULL;
            }
            else if (PyObject_GenericSetAttr(made, PyTuple_GET_ITEM(plan->names, i), fields[i]) < 0) {
                Py_CLEAR(made);
            }
        }
        return made;
    }
    PyObject *few[FEW_FIELDS + 1], **arguments = few;
    if (count > FEW_FIELDS) {
        arguments = PyMem_Malloc((size_t)(count + 1) * sizeof(PyObject *));
        if (arguments == NULL) return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        arguments[i + 1] = fields[plan->order[i]];
    }
    Py_ssize_t named = PyTuple_GET_SIZE(plan->keywords);
    PyObject *made = PyObject_Vectorcall(
        plan->first, arguments + 1, (size_t)(count - named) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        named > 0 ? plan->keywords : NULL);
    if (arguments != few) {
        PyMem_Free(arguments);
    }
    return made;
}

static PyObject *class_in(State *state, Plan *plan, PyObject *term)
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
        PyObject *field = run(state, node_of(plan, done), PyTuple_GET_ITEM(term, done + 1));
        if (field == NULL) goto exit;
        fields[done++] = field;
    }
    made = instance_of(plan, fields, count);
exit:
    while (done > 0) {
        Py_XDECREF(fields[--done]);
    }
    if (fields != few) {
        PyMem_Free(fields);
    }
    return made;
}

static PyObject *class_out(State *state, Plan *plan, PyObject *value)
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
        PyObject *term = field == NULL ? NULL : run(state, node_of(plan, i), field);
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

static PyObject *run_deep(State *state, Plan *plan, PyObject *subject)
{
    switch (plan->kind) {
    case LIST:
        return list_of(state, node_of(plan, 0), subject);
    case TUPLE:
        return tuple_of(state, plan, subject);
    case DICT_IN:
        return dict_in(state, plan, subject);
    case OPTION_IN:
        return option_in(state, plan, subject);
    case OPTION_OUT:
        return option_out(state, plan, subject);
    case UNION_IN:
        return union_in(state, plan, subject);
    case UNION_OUT:
        return union_out(state, plan, subject);
    case BY_CLASS:
        return by_class(state, plan, subject);
    case CLASS_IN:
        return class_in(state, plan, subject);
    case CLASS_OUT:
        return class_out(state, plan, subject);
    default:
        return NULL;
    }
}

/* A new reference; NULL for a misfit, with or without an exception. */
static PyObject *run(State *state, Plan *plan, PyObject *subject)
{
    switch (plan->kind) {
    case AS_IT_IS:
        return Py_NewRef(subject);
    case NATIVE:
        return (PyObject *)Py_TYPE(subject) == plan->first ? Py_NewRef(subject) : NULL;
    case TEXT_IN:
        return text_in(subject);
    case TEXT_OUT:
        return text_out(subject);
    case FLOAT_OUT:
        return PyFloat_CheckExact(subject) && isfinite(PyFloat_AS_DOUBLE(subject)) ? Py_NewRef(subject) : NULL;
    case ENUM_IN:
        return enum_in(state, plan, subject);
    case CALL:
        return PyObject_CallOneArg(plan->first, subject);
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in a Gleam value")) return NULL;
    PyObject *made = run_deep(state, plan, subject);
    Py_LeaveRecursiveCall();
    return made;
}

static PyObject *plan_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Plan *plan = (Plan *)self;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a plan takes one term or value");
        return NULL;
    }
    State *state = state_of(plan);
    PyObject *made = run(state, plan, args[0]);
    if (made != NULL) return made;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
        PyErr_Clear();
    }
    return Py_NewRef(state->misfit);
}

/* --- making ---------------------------------------------------------------------------------------- */

/* Where the slot of an attribute is, -1 if it is in none, -2 with an exception. */
static Py_ssize_t slot_of(PyObject *class, PyObject *name)
{
    PyObject *member = PyObject_GetAttr(class, name);
    Py_ssize_t at = -1;
    if (member == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -2;
        PyErr_Clear();
        return -1;
    }
    if (Py_IS_TYPE(member, &PyMemberDescr_Type)) {
        const PyMemberDef *found = ((PyMemberDescrObject *)member)->d_member;
        at = found->type == Py_T_OBJECT_EX ? found->offset : -1;
    }
    Py_DECREF(member);
    return at;
}

static bool are_plans(Plan *plan, PyObject *nodes)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(nodes); i++) {
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(nodes, i), Py_TYPE(plan))) return false;
    }
    return true;
}

static bool are_plans_in(Plan *plan, PyObject *table, bool sized)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;
    if (table == NULL || !PyDict_CheckExact(table)) return false;
    while (PyDict_Next(table, &at, &key, &value)) {
        if (sized ? !are_plans_in(plan, value, false) : !Py_IS_TYPE(value, Py_TYPE(plan))) return false;
    }
    return true;
}

/* Whether what was given is what the kind needs. */
static bool is_complete(Plan *plan, Kind kind)
{
    Py_ssize_t nodes = PyTuple_GET_SIZE(plan->nodes);
    switch (kind) {
    case AS_IT_IS:
    case TEXT_IN:
    case TEXT_OUT:
    case FLOAT_OUT:
    case TUPLE:
        return true;
    case NATIVE:
        return plan->first != NULL && PyType_Check(plan->first);
    case LIST:
        return nodes == 1;
    case DICT_IN:
        return nodes == 2;
    case OPTION_IN:
    case OPTION_OUT:
        return nodes == 1 && plan->first != NULL && plan->second != NULL;
    case UNION_IN:
        return are_plans_in(plan, plan->first, false) && are_plans_in(plan, plan->second, true) &&
            are_plans_in(plan, plan->third, false);
    case UNION_OUT:
        return are_plans_in(plan, plan->first, false);
    case ENUM_IN:
        return plan->first != NULL && PyDict_CheckExact(plan->first);
    case CLASS_IN:
    case CLASS_OUT:
        return plan->first != NULL && PyType_Check(plan->first) && plan->second != NULL &&
            PyTuple_GET_SIZE(plan->names) == nodes;
    case BY_CLASS:
        return plan->first != NULL && PyDict_CheckExact(plan->first) && plan->second != NULL;
    case CALL:
        return plan->first != NULL;
    default:
        return false;
    }
}

/* Find the slots of the attributes, and for a class on its way in, the order of its arguments. */
static int find_fields(Plan *plan, Kind kind, PyObject *order)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->names);
    plan->at = PyMem_Malloc((size_t)(count + 1) * sizeof(Py_ssize_t));
    if (plan->at == NULL) goto memory;
    for (Py_ssize_t i = 0; i < count; i++) {
        plan->at[i] = slot_of(plan->first, PyTuple_GET_ITEM(plan->names, i));
        if (plan->at[i] == -2) return -1;
    }
    if (kind == CLASS_OUT) return 0;
    PyTypeObject *class = (PyTypeObject *)plan->first;
    if (order == Py_None && class->tp_new == PyBaseObject_Type.tp_new && !(class->tp_flags & Py_TPFLAGS_IS_ABSTRACT)) {
        return 0;
    }
    if (order == Py_None || !PyTuple_CheckExact(order) || PyTuple_GET_SIZE(order) != count) goto wrong;
    plan->order = PyMem_Malloc((size_t)(count + 1) * sizeof(Py_ssize_t));
    if (plan->order == NULL) goto memory;
    for (Py_ssize_t i = 0; i < count; i++) {
        plan->order[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(order, i));
        if (plan->order[i] < 0 || plan->order[i] >= count) goto wrong;
    }
    return 0;
memory:
    PyErr_NoMemory();
    return -1;
wrong:
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "the class has to be called, and no order of its arguments was given");
    }
    return -1;
}

static PyObject *plan_become(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "first", "second", "third", "nodes", "names", "order", "keywords", NULL};
    Plan *plan = (Plan *)self;
    int kind;
    PyObject *first = NULL, *second = NULL, *third = NULL, *nodes = NULL, *fields = NULL, *order = Py_None, *keywords = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "i|OOOO!O!OO!", names, &kind, &first, &second, &third, &PyTuple_Type, &nodes, &PyTuple_Type,
            &fields, &order, &PyTuple_Type, &keywords)) {
        return NULL;
    }
    if (plan->kind != UNMADE || kind <= UNMADE || kind >= KIND_COUNT || (nodes != NULL && !are_plans(plan, nodes))) {
        PyErr_SetString(PyExc_ValueError, "not a plan");
        return NULL;
    }
    Py_XSETREF(plan->first, Py_XNewRef(first));
    Py_XSETREF(plan->second, Py_XNewRef(second));
    Py_XSETREF(plan->third, Py_XNewRef(third));
    Py_XSETREF(plan->nodes, nodes != NULL ? Py_NewRef(nodes) : PyTuple_New(0));
    Py_XSETREF(plan->names, fields != NULL ? Py_NewRef(fields) : PyTuple_New(0));
    Py_XSETREF(plan->keywords, keywords != NULL ? Py_NewRef(keywords) : PyTuple_New(0));
    if (plan->nodes == NULL || plan->names == NULL || plan->keywords == NULL) return NULL;
    if (!is_complete(plan, (Kind)kind) || PyTuple_GET_SIZE(plan->keywords) > PyTuple_GET_SIZE(plan->names)) {
        PyErr_SetString(PyExc_ValueError, "not all that this kind of plan needs");
        return NULL;
    }
    if ((kind == CLASS_IN || kind == CLASS_OUT) && plan->at == NULL && find_fields(plan, (Kind)kind, order) < 0) return NULL;
    plan->kind = (Kind)kind;
    Py_RETURN_NONE;
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names)) return NULL;
    Plan *plan = (Plan *)type->tp_alloc(type, 0);
    if (plan == NULL) return NULL;
    plan->call = plan_call;
    plan->kind = UNMADE;
    return (PyObject *)plan;
}

static int plan_traverse(PyObject *self, visitproc visit, void *arg)
{
    Plan *plan = (Plan *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(plan->first);
    Py_VISIT(plan->second);
    Py_VISIT(plan->third);
    Py_VISIT(plan->nodes);
    Py_VISIT(plan->names);
    Py_VISIT(plan->keywords);
    return 0;
}

static int plan_clear(PyObject *self)
{
    Plan *plan = (Plan *)self;
    plan->kind = UNMADE;
    Py_CLEAR(plan->first);
    Py_CLEAR(plan->second);
    Py_CLEAR(plan->third);
    Py_CLEAR(plan->nodes);
    Py_CLEAR(plan->names);
    Py_CLEAR(plan->keywords);
    return 0;
}

static void plan_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    plan_clear(self);
    PyMem_Free(((Plan *)self)->at);
    PyMem_Free(((Plan *)self)->order);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef plan_methods[] = {
    {"become", (PyCFunction)(void (*)(void))plan_become, METH_VARARGS | METH_KEYWORDS,
     "become(kind, first=None, second=None, third=None, nodes=(), names=(), order=None, keywords=())\n--\n\n"
     "Say, once, what this plan does."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef plan_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Plan, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, "A plan: called with a term or a value, it returns the other one, or MISFIT."},
    {Py_tp_new, plan_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, plan_traverse},
    {Py_tp_clear, plan_clear},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {Py_tp_members, plan_members},
    {0, NULL},
};

static PyType_Spec plan_spec = {
    .name = "pyglyn.gleam._plans.Plan",
    .basicsize = sizeof(Plan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = plan_slots,
};

/* --- the module ------------------------------------------------------------------------------------ */

#define AS_NAME(name) #name,
static const char *const kind_names[] = {KINDS(AS_NAME)};

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    PyObject *terms = PyImport_ImportModule("pyglyn.etf.terms");
    if (terms == NULL) return -1;
    state->atom_type = (PyTypeObject *)PyObject_GetAttrString(terms, "Atom");
    Py_DECREF(terms);
    state->plan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &plan_spec, NULL);
    state->misfit = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (state->atom_type == NULL || state->plan_type == NULL || state->misfit == NULL) return -1;
    if (PyModule_AddObjectRef(module, "Plan", (PyObject *)state->plan_type) < 0) return -1;
    if (PyModule_AddObjectRef(module, "MISFIT", state->misfit) < 0) return -1;
    for (int i = 0; i < KIND_COUNT; i++) {
        if (PyModule_AddIntConstant(module, kind_names[i], i) < 0) return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->atom_type);
    Py_VISIT(state->misfit);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->atom_type);
    Py_CLEAR(state->misfit);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},  /* caches are not locked: a free-threaded build takes the GIL for us */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.gleam._plans",
    .m_doc = "Decoders and encoders of types in C; see pyglyn.gleam.plans.",
    .m_size = sizeof(State),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__plans(void)
{
    return PyModuleDef_Init(&definition);
}
