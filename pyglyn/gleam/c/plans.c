/* The module of the plans, and how they are made; see plans.h. */

#include "plans.h"

static struct PyModuleDef definition;

static Plans *plans_of(PyObject *plan)
{
    return (Plans *)PyModule_GetState(PyType_GetModule(Py_TYPE(plan)));
}

/* --- what plans do --------------------------------------------------------------------------------- */

static PyObject *plan_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a plan takes one term or value");
        return NULL;
    }
    Plans *plans = plans_of(self);
    PyObject *made = run_plan(plans, (Plan *)self, args[0]);
    return made != NULL ? made : as_misfit(plans->misfit);
}

/* Read what begins at `pos`, and, if it is `whole`, ends where the input does. */
static PyObject *read_at(Plans *plans, Plan *plan, const Py_buffer *view, Py_ssize_t pos, PyObject *limits, bool whole)
{
    Reader reader;
    PyObject *made = NULL;
    if (pos > view->len) return NULL;
    begin_reading(&reader, plans->etf, view->buf, pos, view->len);
    if (limits == NULL || set_limits(&reader, limits)) {
        made = read_plan(plans, plan, &reader);
    }
    if (made != NULL && whole && reader.pos != reader.size) {
        Py_CLEAR(made);
    }
    end_reading(&reader);
    return made;
}

static PyObject *plan_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Plans *plans = plans_of(self);
    Py_buffer view;
    PyObject *made = NULL;
    if (nargs < 1 || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "read takes bytes, and limits");
        return NULL;
    }
    if (hold_input(args[0], &view)) {
        if (view.len > 0 && *(const uint8_t *)view.buf == VERSION) {
            made = read_at(plans, (Plan *)self, &view, 1, nargs > 1 ? args[1] : NULL, true);
        }
        PyBuffer_Release(&view);
    }
    return made != NULL ? made : as_misfit(plans->misfit);
}

static PyObject *plan_read_bare(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Plans *plans = plans_of(self);
    Py_buffer view;
    PyObject *made = NULL;
    Py_ssize_t pos = nargs > 1 ? PyLong_AsSsize_t(args[1]) : 0;
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "read_bare takes bytes, an offset, and limits");
        return NULL;
    }
    if (pos >= 0 && hold_input(args[0], &view)) {
        made = read_at(plans, (Plan *)self, &view, pos, nargs > 2 ? args[2] : NULL, false);
        PyBuffer_Release(&view);
    }
    return made != NULL ? made : as_misfit(plans->misfit);
}

static PyObject *plan_write(PyObject *self, PyObject *value)
{
    Plans *plans = plans_of(self);
    Writer writer;
    PyObject *data = NULL;
    static const uint8_t version = VERSION;
    begin_writing(&writer, plans->etf);
    if (write_raw(&writer, &version, 1) == 0 && write_plan(plans, (Plan *)self, &writer, value) == 0) {
        data = take_written(&writer);
    }
    end_writing(&writer);
    return data != NULL ? data : as_misfit(plans->misfit);
}

/* --- making ---------------------------------------------------------------------------------------- */

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
static bool is_complete(Plan *plan, PlanKind kind)
{
    Py_ssize_t nodes = PyTuple_GET_SIZE(plan->nodes);
    switch (kind) {
    case P_AS_IT_IS:
    case P_TEXT_IN:
    case P_TEXT_OUT:
    case P_FLOAT_OUT:
    case P_TUPLE:
        return true;
    case P_NATIVE:
        return plan->first != NULL && PyType_Check(plan->first);
    case P_LIST:
        return nodes == 1;
    case P_DICT_IN:
        return nodes == 2;
    case P_OPTION_IN:
    case P_OPTION_OUT:
        return nodes == 1 && plan->first != NULL && plan->second != NULL;
    case P_UNION_IN:
        return are_plans_in(plan, plan->first, false) && are_plans_in(plan, plan->second, true) &&
            are_plans_in(plan, plan->third, false);
    case P_UNION_OUT:
        return are_plans_in(plan, plan->first, false);
    case P_ENUM_IN:
        return plan->first != NULL && PyDict_CheckExact(plan->first);
    case P_CLASS_IN:
    case P_CLASS_OUT:
        return plan->first != NULL && PyType_Check(plan->first) && plan->second != NULL &&
            PyTuple_GET_SIZE(plan->names) == nodes;
    case P_BY_CLASS:
        return plan->first != NULL && PyDict_CheckExact(plan->first) && plan->second != NULL;
    case P_CALL:
        return plan->first != NULL;
    default:
        return false;
    }
}

/* Find the slots of the attributes, and for a class on its way in, the order of its arguments. */
static int find_fields(Plan *plan, PlanKind kind, PyObject *order)
{
    Py_ssize_t count = PyTuple_GET_SIZE(plan->names);
    plan->at = PyMem_Malloc((size_t)(count + 1) * sizeof(Py_ssize_t));
    if (plan->at == NULL) goto memory;
    for (Py_ssize_t i = 0; i < count; i++) {
        plan->at[i] = slot_of(plan->first, PyTuple_GET_ITEM(plan->names, i));
        if (plan->at[i] == -2) return -1;
    }
    if (kind == P_CLASS_OUT) return 0;
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

/* Add how a term with this tag begins: a tuple of that size, or the bare atom for 0. What is larger has no head. */
static bool add_head(Plan *plan, PyObject *tag, Py_ssize_t size, PyObject *node)
{
    Writer writer;
    const uint8_t tuple[] = {SMALL_TUPLE_EXT, (uint8_t)size};
    if (size > UINT8_MAX) return true;
    begin_writing(&writer, plans_of((PyObject *)plan)->etf);
    int failed = size == 0 ? 0 : write_raw(&writer, tuple, sizeof(tuple));
    PyObject *kept = failed < 0 || write_term(&writer, tag) < 0 ? NULL : take_written(&writer);
    end_writing(&writer);
    if (kept == NULL) return false;
    plan->heads[plan->head_count++] = (Head){kept, (Plan *)node};
    return true;
}

static bool add_heads_of_union(Plan *plan)
{
    PyObject *tag, *node, *sizes, *size;
    for (Py_ssize_t at = 0; PyDict_Next(plan->first, &at, &tag, &node);) {
        if (!add_head(plan, tag, 0, node)) return false;
    }
    for (Py_ssize_t at = 0; PyDict_Next(plan->second, &at, &tag, &sizes);) {
        for (Py_ssize_t within = 0; PyDict_Next(sizes, &within, &size, &node);) {
            Py_ssize_t number = PyLong_AsSsize_t(size);
            if (number < 1 || !add_head(plan, tag, number, node)) return false;
        }
    }
    return true;
}

static size_t head_room(Plan *plan, PlanKind kind)
{
    size_t room = 2;
    PyObject *sizes;
    if (kind != P_UNION_IN) return room;
    for (Py_ssize_t at = 0; PyDict_Next(plan->second, &at, NULL, &sizes);) {
        room += (size_t)PyDict_GET_SIZE(sizes);
    }
    return room + (size_t)PyDict_GET_SIZE(plan->first);
}

/* Write how the terms of a custom type begin. */
static int find_heads(Plan *plan, PlanKind kind)
{
    Py_ssize_t fields = PyTuple_GET_SIZE(plan->nodes), size = fields > 0 ? fields + 1 : 0;
    bool done = true;
    if (kind != P_OPTION_IN && kind != P_OPTION_OUT && kind != P_UNION_IN && kind != P_CLASS_IN && kind != P_CLASS_OUT) return 0;
    plan->heads = PyMem_Calloc(head_room(plan, kind), sizeof(Head));
    if (plan->heads == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    switch (kind) {
    case P_OPTION_IN:
    case P_OPTION_OUT:
        done = add_head(plan, plan->first, 0, NULL) && add_head(plan, plan->second, 2, NULL);
        break;
    case P_UNION_IN:
        done = add_heads_of_union(plan);
        break;
    default:
        done = add_head(plan, plan->second, size, NULL);
        if (done && kind == P_CLASS_IN && plan->third != NULL && plan->third != plan->second) {
            done = add_head(plan, plan->third, size, NULL);
        }
        break;
    }
    if (done) return 0;
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "no plan has a tag like that");
    }
    return -1;
}

static void forget_heads(Plan *plan)
{
    while (plan->head_count > 0) {
        Py_DECREF(plan->heads[--plan->head_count].kept);
    }
    PyMem_Free(plan->heads);
    plan->heads = NULL;
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
    if (plan->kind != P_UNMADE || kind <= P_UNMADE || kind >= PLAN_KIND_COUNT || (nodes != NULL && !are_plans(plan, nodes))) {
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
    if (!is_complete(plan, (PlanKind)kind) || PyTuple_GET_SIZE(plan->keywords) > PyTuple_GET_SIZE(plan->names)) {
        PyErr_SetString(PyExc_ValueError, "not all that this kind of plan needs");
        return NULL;
    }
    if ((kind == P_CLASS_IN || kind == P_CLASS_OUT) && plan->at == NULL && find_fields(plan, (PlanKind)kind, order) < 0) return NULL;
    forget_heads(plan);
    if (find_heads(plan, (PlanKind)kind) < 0) return NULL;
    plan->kind = (PlanKind)kind;
    Py_RETURN_NONE;
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names)) return NULL;
    Plan *plan = (Plan *)type->tp_alloc(type, 0);
    if (plan == NULL) return NULL;
    plan->call = plan_call;
    plan->kind = P_UNMADE;
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
    plan->kind = P_UNMADE;
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
    forget_heads((Plan *)self);
    PyMem_Free(((Plan *)self)->at);
    PyMem_Free(((Plan *)self)->order);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef plan_methods[] = {
    {"become", (PyCFunction)(void (*)(void))plan_become, METH_VARARGS | METH_KEYWORDS,
     "become(kind, first=None, second=None, third=None, nodes=(), names=(), order=None, keywords=())\n--\n\n"
     "Say, once, what this plan does."},
    {"read", (PyCFunction)(void (*)(void))plan_read, METH_FASTCALL,
     "read(data, limits=..., /)\n--\n\nMake a value of one encoded term, version byte first, or MISFIT."},
    {"read_bare", (PyCFunction)(void (*)(void))plan_read_bare, METH_FASTCALL,
     "read_bare(data, offset=0, limits=..., /)\n--\n\nThe same without a version byte; what follows it is left alone."},
    {"write", plan_write, METH_O, "write(value, /)\n--\n\nEncode what the plan makes of a value, or give MISFIT."},
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

static const char *const kind_names[] = {KINDS(AS_NAME)};

/* The codec's state, for which it has to be built from the same header. */
static int find_codec(Plans *plans)
{
    plans->codec = PyImport_ImportModule("pyglyn.etf._speedups");
    PyObject *capsule = plans->codec == NULL ? NULL : PyObject_GetAttrString(plans->codec, STATE_ATTRIBUTE);
    plans->etf = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, STATE_CAPSULE);
    Py_XDECREF(capsule);  /* the module has it as well */
    if (plans->etf == NULL) return -1;
    if (plans->etf->layout == sizeof(State)) return 0;
    PyErr_SetString(PyExc_ImportError, "pyglyn.etf._speedups was built from other sources");
    return -1;
}

static int module_exec(PyObject *module)
{
    Plans *plans = PyModule_GetState(module);
    if (find_codec(plans) < 0) return -1;
    plans->plan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &plan_spec, NULL);
    plans->misfit = add_kinds(module, kind_names, PLAN_KIND_COUNT);
    if (plans->plan_type == NULL || plans->misfit == NULL) return -1;
    return PyModule_AddObjectRef(module, "Plan", (PyObject *)plans->plan_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Plans *plans = PyModule_GetState(module);
    Py_VISIT(plans->plan_type);
    Py_VISIT(plans->misfit);
    Py_VISIT(plans->codec);
    return 0;
}

static int module_clear(PyObject *module)
{
    Plans *plans = PyModule_GetState(module);
    Py_CLEAR(plans->plan_type);
    Py_CLEAR(plans->misfit);
    Py_CLEAR(plans->codec);
    return 0;
}

static PyModuleDef_Slot slots[] = MODULE_SLOTS(module_exec);

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.gleam._plans",
    .m_doc = "Decoders and encoders of types in C; see pyglyn.gleam.plans.",
    .m_size = sizeof(Plans),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__plans(void)
{
    return PyModuleDef_Init(&definition);
}
