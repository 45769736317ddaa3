/* Hash and equality of pids, ports and references: twins of those in terms.py, put into its classes.
 *
 * A method is called without the module, so the places of the fields are kept here. They are the same in every
 * interpreter, as the classes are.
 */

#include "codec.h"

static Py_ssize_t pid_at[4], port_at[3], reference_at[3];

static inline PyObject *field(PyObject *self, Py_ssize_t at)
{
    return *(PyObject **)((char *)self + at);
}

/* Write a number as terms._packed does; false if it is none of so many bits. */
static bool pack(PyObject *number, uint8_t **to, int width)
{
    if (number == NULL || !PyLong_Check(number)) return false;
    uint64_t value = PyLong_AsUnsignedLongLong(number);
    if (value == UINT64_MAX && PyErr_Occurred()) return false;
    if (width == 4 && value >> 32) return false;
    for (int i = width - 1; i >= 0; i--) {
        *(*to)++ = (uint8_t)(value >> (8 * i));
    }
    return true;
}

/* terms._hash: of the node and of the packed fields, or of all fields where they cannot be packed */
static PyObject *hash_of(PyObject *self, const Py_ssize_t *at, int count, const uint8_t *packed, Py_ssize_t size)
{
    PyObject *node = field(self, at[0]);
    Py_hash_t hash = -1;

    if (node == NULL) goto missing;
    if (size > 0) {
        hash = PyObject_Hash(node);
        if (hash == -1) return NULL;
        Py_hash_t rest = PyHash_GetFuncDef()->hash(packed, size);
        hash ^= rest == -1 ? -2 : rest;
    }
    else {
        PyErr_Clear();
        PyObject *fields = PyTuple_New(count);
        if (fields == NULL) return NULL;
        for (int i = 0; i < count; i++) {
            PyObject *each = field(self, at[i]);
            if (each == NULL) {
                Py_DECREF(fields);
                goto missing;
            }
            PyTuple_SET_ITEM(fields, i, Py_NewRef(each));
        }
        hash = PyObject_Hash(fields);
        Py_DECREF(fields);
        if (hash == -1) return NULL;
    }
    return PyLong_FromSsize_t(hash);
missing:
    PyErr_SetString(PyExc_AttributeError, "a field was deleted");
    return NULL;
}

static PyObject *equal(PyObject *self, PyObject *other, const Py_ssize_t *at, int count)
{
    if (Py_TYPE(self) != Py_TYPE(other)) Py_RETURN_NOTIMPLEMENTED;
    for (int i = count - 1; i >= 0; i--) {
        PyObject *mine = field(self, at[i]), *theirs = field(other, at[i]);
        if (mine == NULL || theirs == NULL) {
            PyErr_SetString(PyExc_AttributeError, "a field was deleted");
            return NULL;
        }
        if (mine == theirs) continue;
        Py_INCREF(mine);
        Py_INCREF(theirs);
        int same = PyObject_RichCompareBool(mine, theirs, Py_EQ);
        Py_DECREF(mine);
        Py_DECREF(theirs);
        if (same < 0) return NULL;
        if (same == 0) Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

static PyObject *pid_hash(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint8_t packed[12], *to = packed;
    bool fits = pack(field(self, pid_at[1]), &to, 4) && pack(field(self, pid_at[2]), &to, 4) &&
        pack(field(self, pid_at[3]), &to, 4);
    return hash_of(self, pid_at, 4, packed, fits ? to - packed : 0);
}

static PyObject *port_hash(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint8_t packed[12], *to = packed;
    bool fits = pack(field(self, port_at[1]), &to, 8) && pack(field(self, port_at[2]), &to, 4);
    return hash_of(self, port_at, 3, packed, fits ? to - packed : 0);
}

static PyObject *reference_hash(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint8_t packed[4 * (MAX_REFERENCE_WORDS + 1)], *to = packed;
    PyObject *words = field(self, reference_at[2]);
    bool fits = words != NULL && PyTuple_CheckExact(words) && PyTuple_GET_SIZE(words) <= MAX_REFERENCE_WORDS &&
        pack(field(self, reference_at[1]), &to, 4);
    for (Py_ssize_t i = 0; fits && i < PyTuple_GET_SIZE(words); i++) {
        fits = pack(PyTuple_GET_ITEM(words, i), &to, 4);
    }
    return hash_of(self, reference_at, 3, packed, fits ? to - packed : 0);
}

static PyObject *pid_eq(PyObject *self, PyObject *other)
{
    return equal(self, other, pid_at, 4);
}

static PyObject *port_eq(PyObject *self, PyObject *other)
{
    return equal(self, other, port_at, 3);
}

static PyObject *reference_eq(PyObject *self, PyObject *other)
{
    return equal(self, other, reference_at, 3);
}

static PyMethodDef pid_methods[] = {
    {"__hash__", pid_hash, METH_NOARGS, NULL}, {"__eq__", pid_eq, METH_O, NULL},
};
static PyMethodDef port_methods[] = {
    {"__hash__", port_hash, METH_NOARGS, NULL}, {"__eq__", port_eq, METH_O, NULL},
};
static PyMethodDef reference_methods[] = {
    {"__hash__", reference_hash, METH_NOARGS, NULL}, {"__eq__", reference_eq, METH_O, NULL},
};

static int speed_up(const Class *class, Py_ssize_t *at, size_t size, PyMethodDef *methods)
{
    memcpy(at, class->at, size);
    for (int i = 0; i < 2; i++) {
        PyObject *method = PyDescr_NewMethod(class->type, &methods[i]);
        int failed = method == NULL
            ? -1 : PyObject_SetAttrString((PyObject *)class->type, methods[i].ml_name, method);
        Py_XDECREF(method);
        if (failed < 0) return -1;
    }
    return 0;
}

int speed_up_identifiers(State *state)
{
    if (speed_up(&state->pid, pid_at, sizeof(pid_at), pid_methods) < 0) return -1;
    if (speed_up(&state->port, port_at, sizeof(port_at), port_methods) < 0) return -1;
    return speed_up(&state->reference, reference_at, sizeof(reference_at), reference_methods);
}
