/* Decoders by hand: what the classes of dynamic.py and decode.py do in `run` for terms that fit, in C. Layer: gleam, pure.
 *
 * A decoder is an object of Python with what it needs in slots. Called with one and a term, `decode` gives the value;
 * or MISFIT, whatever the reason, and then its `run` is called, which alone says what is wrong. A class that is not known
 * here has its `run` called as well, in its place; what that says is wrong is a misfit.
 *
 * Users make decoders within decoders, for each term anew: so `make` fills the slots without a call of `__init__`.
 *
 * Threads: under the GIL, see codec.h.
 */

#include "kinds.h"
#include <stdbool.h>
#include <stddef.h>

/* The classes that are known, with the slots of each, in their order. */
#define KINDS(X) \
    X(Exact)        /* the type of the term; its name, and what stands for it */ \
    X(Text) \
    X(Named)        /* its name, the atom */ \
    X(Success)      /* the value */ \
    X(ListOf)       /* the decoder of the elements */ \
    X(Field)        /* the decoder, the name, what comes next or None */ \
    X(Mapped)       /* the decoder, the function */ \
    X(Then)         /* the same */ \
    X(OneOf)        /* a tuple of the other decoders, the first one */

#define AS_ENUM(name) name,
typedef enum { KINDS(AS_ENUM) KIND_COUNT } Kind;

enum { MAX_SLOTS = 3 };

typedef struct {
    PyTypeObject *type;
    Py_ssize_t at[MAX_SLOTS];
    int count;
} Class;

typedef struct {
    Class classes[KIND_COUNT];
    PyObject *misfit;
    PyObject *run;              /* the name */
} State;

static struct PyModuleDef definition;

static PyObject *run(State *state, PyObject *decoder, PyObject *term);

/* What is in a slot, borrowed; NULL if it was never set. */
static inline PyObject *field_of(State *state, PyObject *decoder, Kind kind, int i)
{
    return *(PyObject **)((char *)decoder + state->classes[kind].at[i]);
}

static int kind_of(State *state, PyTypeObject *type)
{
    int kind = 0;
    while (kind < KIND_COUNT && state->classes[kind].type != type) {
        kind++;
    }
    return kind;
}

/* --- running --------------------------------------------------------------------------------------- */

static PyObject *list_of(State *state, PyObject *inner, PyObject *term)
{
    bool is_list = PyList_CheckExact(term);
    if (!is_list && !PyTuple_CheckExact(term)) return NULL;
    Py_ssize_t size = Py_SIZE(term);
    PyObject *made = PyList_New(size);
    if (made == NULL) return NULL;
    PyObject_GC_UnTrack(made);  /* nobody may see it before it is full */
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = i >= Py_SIZE(term) ? NULL : is_list ? PyList_GET_ITEM(term, i) : PyTuple_GET_ITEM(term, i);
        Py_XINCREF(item);  /* a function of a user's may change the list */
        PyObject *value = item == NULL ? NULL : run(state, inner, item);
        Py_XDECREF(item);
        if (value == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        PyList_SET_ITEM(made, i, value);
    }
    PyObject_GC_Track(made);
    if (Py_SIZE(term) == size) return made;
    Py_DECREF(made);
    return NULL;
}

/* Run the decoder that a user's function gives for a value; takes the reference to the value. */
static PyObject *go_on(State *state, PyObject *next, PyObject *value, PyObject *term)
{
    PyObject *decoder = PyObject_CallOneArg(next, value);
    Py_DECREF(value);
    PyObject *made = decoder == NULL ? NULL : run(state, decoder, term);
    Py_XDECREF(decoder);
    return made;
}

/* Of a position in a tuple */
static PyObject *run_field(State *state, PyObject *name, PyObject *inner, PyObject *next, PyObject *term)
{
    if (!PyLong_CheckExact(name) || !PyTuple_CheckExact(term)) return NULL;
    Py_ssize_t at = PyLong_AsSsize_t(name);
    if (at < 0 || at >= PyTuple_GET_SIZE(term)) return NULL;
    PyObject *value = run(state, inner, PyTuple_GET_ITEM(term, at));
    return value == NULL || next == Py_None ? value : go_on(state, next, value, term);
}

/* The first one that succeeds. What a function raised to refuse a value is a misfit; anything else ends it all. */
static PyObject *one_of(State *state, PyObject *first, PyObject *others, PyObject *term)
{
    if (!PyTuple_CheckExact(others)) return NULL;
    PyObject *made = run(state, first, term);
    for (Py_ssize_t i = 0; made == NULL && i < PyTuple_GET_SIZE(others); i++) {
        if (PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_ArithmeticError) &&
                !PyErr_ExceptionMatches(PyExc_LookupError)) return NULL;
            PyErr_Clear();
        }
        made = run(state, PyTuple_GET_ITEM(others, i), term);
    }
    return made;
}

/* What a decoder of any other class gives. What its `run` raises refuses no value, and is not to look as if it did. */
static PyObject *run_other(State *state, PyObject *decoder, PyObject *term)
{
    PyObject *made = NULL, *pair = PyObject_CallMethodOneArg(decoder, state->run, term);
    if (pair == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_SetString(PyExc_RuntimeError, "a decoder raised");
    }
    if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        int failed = PyObject_IsTrue(PyTuple_GET_ITEM(pair, 1));
        made = failed == 0 ? Py_NewRef(PyTuple_GET_ITEM(pair, 0)) : NULL;
    }
    Py_XDECREF(pair);
    return made;
}

/* `slots` are those of the decoder. */
static PyObject *run_deep(State *state, PyObject *decoder, int kind, PyObject *const *slots, PyObject *term)
{
    PyObject *value;
    switch (kind) {
    case ListOf:
        return list_of(state, slots[0], term);
    case Field:
        return run_field(state, slots[1], slots[0], slots[2], term);
    case Mapped:
        value = run(state, slots[0], term);
        if (value != NULL) {
            Py_SETREF(value, PyObject_CallOneArg(slots[1], value));
        }
        return value;
    case Then:
        value = run(state, slots[0], term);
        return value == NULL ? NULL : go_on(state, slots[1], value, term);
    case OneOf:
        return one_of(state, slots[1], slots[0], term);
    default:
        return run_other(state, decoder, term);
    }
}

/* Run a decoder, of which users' functions may change the slots meanwhile, or let it go. */
static PyObject *run_held(State *state, PyObject *decoder, int kind, PyObject *term)
{
    PyObject *slots[MAX_SLOTS], *made = NULL;
    int count = kind < KIND_COUNT ? state->classes[kind].count : 0, held = 0;
    for (; held < count; held++) {
        slots[held] = Py_XNewRef(field_of(state, decoder, (Kind)kind, held));
        if (slots[held] == NULL) break;
    }
    if (held == count) {
        Py_INCREF(decoder);
        made = run_deep(state, decoder, kind, slots, term);
        Py_DECREF(decoder);
    }
    while (held > 0) {
        Py_DECREF(slots[--held]);
    }
    return made;
}

/* A new reference; NULL for a misfit, with or without an exception. */
static PyObject *run(State *state, PyObject *decoder, PyObject *term)
{
    PyObject *wanted;
    int kind = kind_of(state, Py_TYPE(decoder));
    switch (kind) {
    case Exact:
        wanted = field_of(state, decoder, Exact, 0);
        return (PyObject *)Py_TYPE(term) == wanted ? Py_NewRef(term) : NULL;
    case Text:
        return PyBytes_CheckExact(term)
            ? PyUnicode_DecodeUTF8(PyBytes_AS_STRING(term), PyBytes_GET_SIZE(term), NULL) : NULL;
    case Named:
        return term == field_of(state, decoder, Named, 1) ? Py_NewRef(term) : NULL;
    case Success:
        return Py_XNewRef(field_of(state, decoder, Success, 0));
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in a decoder")) return NULL;
    PyObject *made = run_held(state, decoder, kind, term);
    Py_LeaveRecursiveCall();
    return made;
}

/* --- what Python sees ------------------------------------------------------------------------------ */

static PyObject *decode(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "decode takes a decoder and a term");
        return NULL;
    }
    PyObject *made = run(state, args[0], args[1]);
    return made != NULL ? made : as_misfit(state->misfit);
}

static PyObject *make(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    int kind = nargs > 0 ? kind_of(state, (PyTypeObject *)args[0]) : KIND_COUNT;
    if (kind == KIND_COUNT || nargs - 1 != state->classes[kind].count) {
        PyErr_SetString(PyExc_TypeError, "make takes a known class and what its slots hold");
        return NULL;
    }
    Class *class = &state->classes[kind];
    PyObject *made = class->type->tp_alloc(class->type, 0);
    for (int i = 0; made != NULL && i < class->count; i++) {
        *(PyObject **)((char *)made + class->at[i]) = Py_NewRef(args[i + 1]);
    }
    return made;
}

static PyObject *know(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    int kind = nargs == 3 ? (int)PyLong_AsLong(args[0]) : -1;
    if (kind < 0 || kind >= KIND_COUNT || state->classes[kind].type != NULL || !PyType_Check(args[1]) ||
        !PyTuple_CheckExact(args[2]) || PyTuple_GET_SIZE(args[2]) > MAX_SLOTS) goto wrong;
    Class found = {(PyTypeObject *)args[1], {0}, (int)PyTuple_GET_SIZE(args[2])};
    if (found.type->tp_new != PyBaseObject_Type.tp_new && !(found.type->tp_flags & Py_TPFLAGS_HEAPTYPE)) goto wrong;
    for (int i = 0; i < found.count; i++) {
        found.at[i] = slot_of(args[1], PyTuple_GET_ITEM(args[2], i));
        if (found.at[i] < 0) goto wrong;
    }
    Py_INCREF(found.type);
    state->classes[kind] = found;
    Py_RETURN_NONE;
wrong:
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "not a class with its fields in slots, or known already");
    }
    return NULL;
}

/* --- the module ------------------------------------------------------------------------------------ */

static const char *const kind_names[] = {KINDS(AS_NAME)};

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->misfit = add_kinds(module, kind_names, KIND_COUNT);
    state->run = PyUnicode_InternFromString("run");
    return state->misfit == NULL || state->run == NULL ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    for (int i = 0; i < KIND_COUNT; i++) {
        Py_VISIT(state->classes[i].type);
    }
    Py_VISIT(state->misfit);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    for (int i = 0; i < KIND_COUNT; i++) {
        Py_CLEAR(state->classes[i].type);
    }
    Py_CLEAR(state->misfit);
    Py_CLEAR(state->run);
    return 0;
}

#define FUNCTION(name, text) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, text}

static PyMethodDef methods[] = {
    FUNCTION(decode, "decode(decoder, term, /)\n--\n\nGive what the decoder makes of a term, or MISFIT."),
    FUNCTION(make, "make(cls, *fields)\n--\n\nMake a decoder of a known class, with what its slots hold."),
    FUNCTION(know, "know(kind, cls, slots, /)\n--\n\nSay, once, which class is of a kind, and in which order its slots are."),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = MODULE_SLOTS(module_exec);

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.gleam._decoders",
    .m_doc = "Decoders by hand, in C; see pyglyn.gleam.decode.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__decoders(void)
{
    return PyModuleDef_Init(&definition);
}
