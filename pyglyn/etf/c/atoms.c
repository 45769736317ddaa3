/* Names, atoms, pids and numbers that are known already: tables of fixed size, for what occurs again and again.
 *
 * An entry has two places where it may be, the fresher one first; a new one takes the first and moves what
 * was there to the second. So nothing that a peer sends can fill the memory, nor make a look-up slow.
 */

#include "codec.h"

static inline uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0x9E3779B97F4A7C15u;
    return value ^ value >> 29;
}

static size_t place_of(const uint8_t *bytes, Py_ssize_t size)
{
    uint64_t head = 0, tail = 0, sum = (uint64_t)size;
    while (size > 16) {
        memcpy(&head, bytes, 8);
        sum = mix(sum ^ head);
        bytes += 8;
        size -= 8;
    }
    if (size >= 8) {
        memcpy(&head, bytes, 8);
        memcpy(&tail, bytes + size - 8, 8);
    }
    else {
        memcpy(&head, bytes, (size_t)size);
    }
    return (size_t)mix(mix(sum ^ head) ^ tail) & (KNOWN_ATOMS - 1);
}

static inline bool is_atom(const KnownAtom *atom, const uint8_t *utf8, Py_ssize_t size)
{
    return atom->name != NULL && atom->size == size && memcmp(atom->utf8, utf8, (size_t)size) == 0;
}

/* readers._checked_name, readers.atom_value; false where the name is none */
static bool make_atom(State *state, const uint8_t *utf8, Py_ssize_t size, KnownAtom *made)
{
    made->name = PyUnicode_DecodeUTF8((const char *)utf8, size, NULL);
    if (made->name == NULL) return false;
    if (PyUnicode_GET_LENGTH(made->name) > MAX_ATOM_CHARACTERS) goto fail;
    made->value = PyObject_CallOneArg(state->atom_value, made->name);
    if (made->value == NULL) goto fail;
    if (Py_TYPE(made->value) == state->atom.type) {
        /* the one name of that atom, however often it is read */
        PyObject *name = *slot(made->value, &state->atom, 0);
        if (name != NULL && PyUnicode_CheckExact(name)) {
            Py_SETREF(made->name, Py_NewRef(name));
        }
    }
    made->utf8 = PyUnicode_AsUTF8AndSize(made->name, &made->size);
    if (made->utf8 != NULL) return true;
    Py_DECREF(made->value);
fail:
    Py_DECREF(made->name);
    return false;
}

static inline bool give(const KnownAtom *atom, PyObject **name, PyObject **value)
{
    if (name != NULL) {
        *name = Py_NewRef(atom->name);
    }
    if (value != NULL) {
        *value = Py_NewRef(atom->value);
    }
    return true;
}

bool find_atom(State *state, const uint8_t *utf8, Py_ssize_t size, PyObject **name, PyObject **value)
{
    size_t place = place_of(utf8, size);
    KnownAtom *first = &state->atoms[place], *second = &state->atoms[place ^ 1], found;

    if (is_atom(first, utf8, size)) return give(first, name, value);
    if (is_atom(second, utf8, size)) {
        found = *second;
        *second = *first;
        *first = found;
        return give(first, name, value);
    }
    if (!make_atom(state, utf8, size, &found)) return false;
    KnownAtom old = *second;
    *second = *first;
    *first = found;
    give(first, name, value);  /* before anything is let go, which may run Python code */
    Py_XDECREF(old.name);
    Py_XDECREF(old.value);
    return true;
}

static inline bool is_pid(const KnownPid *known, PyObject *node, uint32_t id, uint32_t serial, uint32_t creation)
{
    return known->id == id && known->serial == serial && known->creation == creation && known->pid != NULL &&
        (known->node == node || PyUnicode_Compare(known->node, node) == 0);
}

static PyObject *make_pid(State *state, PyObject *node, uint32_t id, uint32_t serial, uint32_t creation)
{
    const Class *class = &state->pid;
    PyObject *pid = class->type->tp_alloc(class->type, 0);
    if (pid == NULL) return NULL;
    PyObject_GC_UnTrack(pid);  /* text and numbers: never part of a cycle */
    *slot(pid, class, 0) = Py_NewRef(node);
    *slot(pid, class, 1) = word_of(id);
    *slot(pid, class, 2) = word_of(serial);
    *slot(pid, class, 3) = find_creation(state, creation);
    if (*slot(pid, class, 1) == NULL || *slot(pid, class, 2) == NULL || *slot(pid, class, 3) == NULL) {
        Py_CLEAR(pid);
    }
    return pid;
}

PyObject *find_pid(State *state, PyObject *node, uint32_t id, uint32_t serial, uint32_t creation)
{
    size_t place = (size_t)mix(mix((uint64_t)serial << 32 | id) ^ creation) & (KNOWN_PIDS - 1);
    KnownPid *first = &state->pids[place], *second = &state->pids[place ^ 1];

    if (is_pid(first, node, id, serial, creation)) return Py_NewRef(first->pid);
    if (is_pid(second, node, id, serial, creation)) {
        KnownPid found = *second;
        *second = *first;
        *first = found;
        return Py_NewRef(found.pid);
    }
    PyObject *pid = make_pid(state, node, id, serial, creation);
    if (pid == NULL) return NULL;
    KnownPid old = *second;
    *second = *first;
    *first = (KnownPid){Py_NewRef(pid), Py_NewRef(node), id, serial, creation};
    Py_XDECREF(old.pid);
    Py_XDECREF(old.node);
    return pid;
}

PyObject *find_creation(State *state, uint32_t creation)
{
    PyObject **known = &state->creations[creation & (KNOWN_CREATIONS - 1)];
    uint64_t magnitude;
    bool negative;
    if (*known != NULL && small_integer(*known, &magnitude, &negative) && magnitude == creation) {
        return Py_NewRef(*known);
    }
    PyObject *made = word_of(creation);
    if (made != NULL) {
        Py_XSETREF(*known, Py_NewRef(made));
    }
    return made;
}

void forget_all(State *state)
{
    for (size_t i = 0; i < KNOWN_INTEGERS; i++) {
        Py_CLEAR(state->integers[i]);
    }
    for (size_t i = 0; i < KNOWN_CREATIONS; i++) {
        Py_CLEAR(state->creations[i]);
    }
    for (size_t i = 0; i < KNOWN_ATOMS; i++) {
        Py_CLEAR(state->atoms[i].name);
        Py_CLEAR(state->atoms[i].value);
    }
    for (size_t i = 0; i < KNOWN_PIDS; i++) {
        Py_CLEAR(state->pids[i].pid);
        Py_CLEAR(state->pids[i].node);
    }
}
