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
    int overflow;
    long long low = PyLong_AsLongLongAndOverflow(number, &overflow);  /* the quick way of more than 30 bits */
    if (overflow == 0 && low < 0) return false;
    uint64_t value = overflow == 0 ? (uint64_t)low : PyLong_AsUnsignedLongLong(number);
    if (value == UINT64_MAX && PyErr_Occurred()) return false;
    if (width == 4 && value >> 32) return false;
    for (int i = width - 1; i >= 0; i--) {
        *(*to)++ = (uint8_t)(value >> (8 * i));
    }
    return true;
}

/* terms._hash: of the node and of the packed fields, or of all fields where they cannot be packed */
static Py_hash_t hash_of(PyObject *self, const Py_ssize_t *at, int count, const uint8_t *packed, Py_ssize_t size)
{
    PyObject *node = field(self, at[0]);
    Py_hash_t hash = -1;

    if (node == NULL) goto missing;
    if (size > 0) {
        hash = PyObject_Hash(node);
        if (hash == -1) return -1;
        Py_hash_t rest = PyHash_GetFuncDef()->hash(packed, size);
        hash ^= rest == -1 ? -2 : rest;
        if (hash == -1) hash = -2;  /* as `hash` has it: -1 is for failures */
    }
    else {
        PyErr_Clear();
        PyObject *fields = PyTuple_New(count);
        if (fields == NULL) return -1;
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
        if (hash == -1) return -1;
    }
    return hash;
missing:
    PyErr_SetString(PyExc_AttributeError, "a field was deleted");
    return -1;
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

static Py_hash_t pid_hash(PyObject *self)
{
    uint8_t packed[12], *to = packed;
    bool fits = pack(field(self, pid_at[1]), &to, 4) && pack(field(self, pid_at[2]), &to, 4) &&
        pack(field(self, pid_at[3]), &to, 4);
    return hash_of(self, pid_at, 4, packed, fits ? to - packed : 0);
}

static Py_hash_t port_hash(PyObject *self)
{
    uint8_t packed[12], *to = packed;
    bool fits = pack(field(self, port_at[1]), &to, 8) && pack(field(self, port_at[2]), &to, 4);
    return hash_of(self, port_at, 3, packed, fits ? to - packed : 0);
}

static Py_hash_t reference_hash(PyObject *self)
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

/* What `__eq__` and `__ne__` are by: attrs writes the second one in terms of the first. */
static PyObject *compare(PyObject *self, PyObject *other, int how, const Py_ssize_t *at, int count)
{
    if (how != Py_EQ && how != Py_NE) Py_RETURN_NOTIMPLEMENTED;
    PyObject *same = equal(self, other, at, count);
    if (same == NULL || how == Py_EQ || same == Py_NotImplemented) return same;
    PyObject *differ = same == Py_True ? Py_False : Py_True;
    Py_DECREF(same);
    return Py_NewRef(differ);
}

#define METHODS(name, count) \
    static PyObject *name##_compare(PyObject *self, PyObject *other, int how) \
    { \
        return compare(self, other, how, name##_at, count); \
    } \
    static PyObject *name##_eq(PyObject *self, PyObject *other) \
    { \
        return equal(self, other, name##_at, count); \
    } \
    static PyObject *name##_hash_method(PyObject *self, PyObject *Py_UNUSED(ignored)) \
    { \
        Py_hash_t hash = name##_hash(self); \
        return hash == -1 && PyErr_Occurred() ? NULL : PyLong_FromSsize_t(hash); \
    } \
    static PyMethodDef name##_methods[] = { \
        {"__hash__", name##_hash_method, METH_NOARGS, NULL}, {"__eq__", name##_eq, METH_O, NULL}, \
    };

METHODS(pid, 4)
METHODS(port, 3)
METHODS(reference, 3)

/* The methods are for who looks them up; dicts and comparisons call the slots, without a look at any method. */
static int speed_up(
    const Class *class, Py_ssize_t *at, size_t size, PyMethodDef *methods, hashfunc hash, richcmpfunc compared)
{
    memcpy(at, class->at, size);
    for (int i = 0; i < 2; i++) {
        PyObject *method = PyDescr_NewMethod(class->type, &methods[i]);
        int failed = method == NULL
            ? -1 : PyObject_SetAttrString((PyObject *)class->type, methods[i].ml_name, method);
        Py_XDECREF(method);
        if (failed < 0) return -1;
    }
    class->type->tp_hash = hash;
    class->type->tp_richcompare = compared;
    return 0;
}

#define SPEED_UP(state, name) \
    speed_up(&(state)->name, name##_at, sizeof(name##_at), name##_methods, name##_hash, name##_compare)

int speed_up_identifiers(State *state)
{
    return SPEED_UP(state, pid) < 0 || SPEED_UP(state, port) < 0 || SPEED_UP(state, reference) < 0 ? -1 : 0;
}
