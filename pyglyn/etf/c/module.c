/* The functions that Python sees, twins of those in pure.py, and what this module uses of the package. */

#include "codec.h"

bool may_go_on(void)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
        PyErr_Clear();
    }
    return true;
}

/* --- decoding -------------------------------------------------------------------------------------- */

/* The term of a pair that Python returned, and the offset after it. */
static PyObject *term_of(PyObject *pair, Py_ssize_t *end)
{
    PyObject *term = NULL;
    if (pair != NULL && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        term = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
        *end = PyLong_AsSsize_t(PyTuple_GET_ITEM(pair, 1));
    }
    Py_XDECREF(pair);
    return term;
}

/* decoder.read_term, of a view of `data` that this releases: NULL with an exception, or without one where the
 * limits are none. */
static PyObject *read_at(
    State *state, PyObject *data, Py_buffer *view, Py_ssize_t pos, PyObject *limits, Py_ssize_t *end)
{
    Reader reader;
    PyObject *term = NULL, *rest = NULL;

    begin_reading(&reader, state, view->buf, pos, view->len);
    bool limited = set_limits(&reader, limits);
    if (limited) {
        term = read_term(&reader);
        *end = reader.pos;
    }
    if (limited && term == NULL && may_go_on()) {
        rest = Py_BuildValue("OOnnnN", data, limits, reader.step, reader.budget, reader.funs, frames_of(&reader));
    }
    end_reading(&reader);
    PyBuffer_Release(view);
    if (rest != NULL) {
        term = term_of(PyObject_CallObject(state->go_on, rest), end);
        Py_DECREF(rest);
    }
    else if (!limited) {
        may_go_on();
    }
    return term;
}

typedef enum { WHOLE, PREFIX, BARE } Form;

/* pure._guarded, pure._read_prefix: NULL without an exception where it is for pure.py */
static PyObject *decode_from(State *state, PyObject *data, Py_ssize_t pos, PyObject *limits, Form form)
{
    Py_buffer view;
    PyObject *term;
    Py_ssize_t end = 0;

    if (!hold_input(data, &view)) return NULL;
    const uint8_t *bytes = view.buf;
    Py_ssize_t size = view.len;
    bool usual = pos <= size;
    if (form != BARE) {
        usual = usual && size >= 2 && bytes[0] == VERSION;
        pos = 1;
    }
    if (!usual) {
        PyBuffer_Release(&view);
        return NULL;
    }
    if (form != BARE && bytes[1] == COMPRESSED) {
        PyBuffer_Release(&view);
        term = term_of(PyObject_CallFunctionObjArgs(state->unpack, data, limits, state->read, NULL), &end);
    }
    else {
        term = read_at(state, data, &view, pos, limits, &end);
    }
    if (term == NULL) return NULL;
    if (form == WHOLE) {
        if (end == size) return term;
        Py_DECREF(term);
        Py_XDECREF(PyObject_CallFunction(state->trailing, "nn", end, size));
        return NULL;
    }
    PyObject *offset = PyLong_FromSsize_t(end);
    PyObject *pair = offset == NULL ? NULL : PyTuple_New(2);
    if (pair == NULL) {
        Py_XDECREF(offset);
        Py_DECREF(term);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, term);
    PyTuple_SET_ITEM(pair, 1, offset);
    return pair;
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
    if (term != NULL || PyErr_Occurred()) return term;
    return PyObject_Vectorcall(state->decode, args, (size_t)nargs, kwnames);
}

/* pure.decode_prefix */
static PyObject *decode_prefix(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *limits = limits_among(state, args, nargs, kwnames);
    PyObject *pair = nargs == 1 && limits != NULL ? decode_from(state, args[0], 0, limits, PREFIX) : NULL;
    if (pair != NULL || PyErr_Occurred()) return pair;
    return PyObject_Vectorcall(state->decode_prefix, args, (size_t)nargs, kwnames);
}

/* pure.decode_bare */
static PyObject *decode_bare(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *limits = limits_among(state, args, nargs, kwnames), *pair = NULL;
    if (limits != NULL && (nargs == 1 || (nargs == 2 && PyLong_CheckExact(args[1])))) {
        Py_ssize_t offset = nargs == 2 ? PyLong_AsSsize_t(args[1]) : 0;
        if (offset < 0) {
            PyErr_Clear();
        }
        else {
            pair = decode_from(state, args[0], offset, limits, BARE);
        }
    }
    if (pair != NULL || PyErr_Occurred()) return pair;
    return PyObject_Vectorcall(state->decode_bare, args, (size_t)nargs, kwnames);
}

/* --- encoding -------------------------------------------------------------------------------------- */

/* encoder.write_term, joined: NULL where the term is not for us. */
static PyObject *encode_joined(State *state, PyObject *term, bool versioned)
{
    Writer writer;
    PyObject *result = NULL;
    static const uint8_t version = VERSION;

    begin_writing(&writer, state);
    if (!versioned || write_raw(&writer, &version, 1) == 0) {
        result = write_term(&writer, term) < 0 ? NULL : take_written(&writer);
    }
    end_writing(&writer);
    return result;
}

/* pure.encode */
static PyObject *encode(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *data = nargs == 1 && kwnames == NULL ? encode_joined(state, args[0], true) : NULL;
    if (data != NULL || !may_go_on()) return data;
    return PyObject_Vectorcall(state->encode, args, (size_t)nargs, kwnames);
}

/* pure.encode_bare */
static PyObject *encode_bare(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *data = nargs == 1 && kwnames == NULL ? encode_joined(state, args[0], false) : NULL;
    if (data != NULL || !may_go_on()) return data;
    return PyObject_Vectorcall(state->encode_bare, args, (size_t)nargs, kwnames);
}

/* pure.encode_parts */
static PyObject *encode_parts(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    Writer writer;
    PyObject *parts = NULL;

    if (nargs == 1 && kwnames == NULL) {
        begin_writing(&writer, state);
        writer.parts = PyList_New(0);
        if (writer.parts != NULL && write_term(&writer, args[0]) == 0) {
            PyObject *last = writer.size > 0 ? take_written(&writer) : NULL;
            if (last == NULL ? !PyErr_Occurred() : PyList_Append(writer.parts, last) == 0) {
                parts = Py_NewRef(writer.parts);
            }
            Py_XDECREF(last);
        }
        end_writing(&writer);
    }
    if (parts != NULL || !may_go_on()) return parts;
    return PyObject_Vectorcall(state->encode_parts, args, (size_t)nargs, kwnames);
}

/* normaliser.normalise */
static PyObject *normalise(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    State *state = state_of(module);
    PyObject *term = nargs == 1 && kwnames == NULL ? normal_of(state, args[0]) : NULL;
    if (term != NULL || !may_go_on()) return term;
    return PyObject_Vectorcall(state->normalise, args, (size_t)nargs, kwnames);
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
    {"pyglyn.etf.normaliser", "normalise", offsetof(State, normalise)},
    {"pyglyn.etf.pure", "go_on", offsetof(State, go_on)},
    {"pyglyn.etf.pure", "trailing", offsetof(State, trailing)},
    {"pyglyn.etf.pure", "unpack", offsetof(State, unpack)},
    {"pyglyn.etf.frames", "join_frames", offsetof(State, join_frames)},
    {"pyglyn.etf.frames", "pack_frame", offsetof(State, pack_frame)},
    {"pyglyn.etf.limits", "DEFAULT_LIMITS", offsetof(State, default_limits)},
    {"pyglyn.etf.readers", "LEAF_READERS", offsetof(State, leaf_readers)},
    {"pyglyn.etf.readers", "atom_value", offsetof(State, atom_value)},
    {"pyglyn.etf.writers", "LEAF_WRITERS", offsetof(State, leaf_writers)},
    {"pyglyn.etf.maps", "make_map", offsetof(State, make_map)},
    {"pyglyn.etf.encoder", "check_keys", offsetof(State, check_keys)},
    {"pyglyn.etf.terms", "Fun", offsetof(State, fun_type)},
    {"pyglyn.etf.terms", "BitString", offsetof(State, bit_string_type)},
    {"pyglyn.etf._speedups", "decode_bare", offsetof(State, read)},
    {"pyglyn.etf.terms", "Atom", offsetof(State, atom.type)},
    {"pyglyn.etf.terms", "Pid", offsetof(State, pid.type)},
    {"pyglyn.etf.terms", "Port", offsetof(State, port.type)},
    {"pyglyn.etf.terms", "Reference", offsetof(State, reference.type)},
    {"pyglyn.etf.terms", "Export", offsetof(State, export.type)},
    {"pyglyn.etf.terms", "ImproperList", offsetof(State, improper_list.type)},
    {"pyglyn.etf.terms", "TermMap", offsetof(State, term_map.type)},
};

static const struct {
    size_t class;
    const char *fields[6];
} classes[] = {
    {offsetof(State, atom), {"name"}},
    {offsetof(State, pid), {"node", "id", "serial", "creation"}},
    {offsetof(State, port), {"node", "id", "creation"}},
    {offsetof(State, reference), {"node", "creation", "words"}},
    {offsetof(State, export), {"module", "function", "arity"}},
    {offsetof(State, improper_list), {"elements", "tail"}},
    {offsetof(State, term_map), {"_entries"}},
};

static PyObject **field_of(State *state, size_t index)
{
    return (PyObject **)((char *)state + imports[index].field);
}

/* Find the slots of a class; fails if it keeps the fields in any other way. */
static int find_slots(Class *class, const char *const *fields)
{
    if (!PyType_Check(class->type)) goto wrong;
    for (int i = 0; fields[i] != NULL; i++) {
        PyObject *member = PyObject_GetAttrString((PyObject *)class->type, fields[i]);
        if (member == NULL) return -1;
        const PyMemberDef *definition =
            Py_IS_TYPE(member, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)member)->d_member : NULL;
        Py_DECREF(member);  /* the class has it as well */
        if (definition == NULL || definition->type != Py_T_OBJECT_EX) goto wrong;
        class->at[i] = definition->offset;
    }
    return 0;
wrong:
    PyErr_SetString(PyExc_ImportError, "a class of pyglyn.etf.terms does not have its fields in slots");
    return -1;
}

static int find_bytes(State *state)
{
    for (int i = 0; i < 256; i++) {
        state->bytes_of[i] = PyLong_FromLong(i);
        if (state->bytes_of[i] == NULL) return -1;
    }
    uintptr_t first = (uintptr_t)state->bytes_of[0], step = (uintptr_t)state->bytes_of[1] - first;
    if (step == 0 || step > 4096 || (step & (step - 1)) != 0) return 0;
    for (uintptr_t i = 0; i < 256; i++) {
        if ((uintptr_t)state->bytes_of[i] != first + i * step) return 0;
    }
    while ((uintptr_t)1 << state->bytes_shift < step) {
        state->bytes_shift++;
    }
    state->bytes_end = 256 * step;
    return 0;
}

static int module_exec(PyObject *module)
{
    State *state = state_of(module);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        bool own = strcmp(imports[i].module, "pyglyn.etf._speedups") == 0;
        PyObject *from = own ? Py_NewRef(module) : PyImport_ImportModule(imports[i].module);
        if (from == NULL) return -1;
        *field_of(state, i) = PyObject_GetAttrString(from, imports[i].name);
        Py_DECREF(from);
        if (*field_of(state, i) == NULL) return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(classes); i++) {
        if (find_slots((Class *)((char *)state + classes[i].class), classes[i].fields) < 0) return -1;
    }
    state->default_elements = limit_of(state->default_limits, "elements");
    state->default_depth = limit_of(state->default_limits, "depth");
    if (state->default_elements < 0 || state->default_depth < 0) return -1;
    state->layout = sizeof(State);
    state->begin_reading = begin_reading;
    state->read_term = read_term;
    state->end_reading = end_reading;
    PyObject *capsule = PyCapsule_New(state, STATE_CAPSULE, NULL);
    if (capsule == NULL || PyModule_AddObjectRef(module, STATE_ATTRIBUTE, capsule) < 0) {
        Py_XDECREF(capsule);
        return -1;
    }
    Py_DECREF(capsule);
    return find_bytes(state) < 0 ? -1 : speed_up_identifiers(state);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_VISIT(*field_of(state_of(module), i));
    }
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = state_of(module);
    forget_all(state);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_CLEAR(*field_of(state, i));
    }
    for (int i = 0; i < 256; i++) {
        Py_CLEAR(state->bytes_of[i]);
    }
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

#define FUNCTION(name, signature) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS, \
     #name signature "\n--\n\nThe same in C as the function of this name in Python."}

#define POSITIONAL(name, signature) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, \
     #name signature "\n--\n\nThe same in C as the function of this name in frames.py."}

static PyMethodDef methods[] = {
    FUNCTION(decode, "(data, *, limits=...)"),
    FUNCTION(decode_prefix, "(data, *, limits=...)"),
    FUNCTION(decode_bare, "(data, offset=0, *, limits=...)"),
    FUNCTION(encode, "(term, *, compressed=0)"),
    FUNCTION(encode_bare, "(term)"),
    FUNCTION(encode_parts, "(term)"),
    FUNCTION(normalise, "(term)"),
    POSITIONAL(cut_frames, "(data, at, least, begins, known, runs, signals=None, most=sys.maxsize, unread=None, /)"),
    POSITIONAL(join_frames, "(head, terms, /)"),
    POSITIONAL(pack_frame, "(head, term, most, control=None, /)"),
    {NULL, NULL, 0, NULL},
};

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

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.etf._speedups",
    .m_doc = "The codec in C; see pyglyn.etf.pure, the definition.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
