/* What a worker sends processes of other nodes: from its link into the connection, as the bytes that they are.
 *
 * As `Router.from_worker` and `Router.messages_from_worker` do. In front of such a control message is the name of a
 * node. What the connection does not take at once, or what would make it busy, is for Python, which tells the worker.
 */

#include "inlet.h"

enum { MOST_WAYS = 512 };       /* as _MOST_KNOWN in link.py */

/* The way by its key, or the one that there is now; a new reference, NULL with or without an exception. */
static PyObject *way_by(Inlet *self, PyObject *key, PyObject *control, PyObject *node)
{
    PyObject *way = Py_XNewRef(PyDict_GetItemWithError(self->ways, key));
    if (way != NULL || PyErr_Occurred()) return way;
    PyObject *args[] = {control, node};
    way = PyObject_Vectorcall(self->find_way, args, 2, NULL);
    if (way == Py_None) Py_CLEAR(way);
    if (way == NULL) return NULL;
    if (PyDict_GET_SIZE(self->ways) >= MOST_WAYS) PyDict_Clear(self->ways);
    if (PyDict_SetItem(self->ways, key, way) < 0) Py_CLEAR(way);
    return way;
}

int forget_way(Inlet *self, PyObject *key)
{
    int known = PyDict_Contains(self->ways, key);
    return known <= 0 ? known : PyDict_DelItem(self->ways, key);
}

/* Where a message with this control message goes, borrowed; NULL for a process here, and for what is no such message. */
static PyObject *node_of(Inlet *self, PyObject *control)
{
    Hot *hot = self->hot;
    if (!PyTuple_CheckExact(control) || PyTuple_GET_SIZE(control) != 2) return NULL;
    PyObject *signal = PyTuple_GET_ITEM(control, 0), *node = PyTuple_GET_ITEM(control, 1);
    if (Py_TYPE(signal) == hot->send) {
        PyObject *to = *field_at(signal, hot->send_to);
        node = to == NULL || Py_TYPE(to) != hot->etf->pid.type ? NULL : *slot(to, &hot->etf->pid, 0);
    }
    else if (Py_TYPE(signal) != hot->reg_send) {
        return NULL;
    }
    return node == Py_None ? NULL : node;
}

bool goes_on(Inlet *self, PyObject *control)
{
    PyObject *node = Py_XNewRef(node_of(self, control));
    int here = node == NULL ? 1 : are_equal(node, self->node);
    Py_XDECREF(node);
    return here == 0;
}

Outcome find_way_on(Inlet *self, PyObject *head, PyObject *control)
{
    PyObject *signal = Py_NewRef(PyTuple_GET_ITEM(control, 0)), *node = Py_NewRef(node_of(self, control));
    Py_XSETREF(self->way, way_by(self, head, signal, node));
    Py_DECREF(signal);
    Py_DECREF(node);
    if (self->way == NULL) return PyErr_Occurred() ? FAILED : OTHER;
    Py_CLEAR(self->link);
    Py_CLEAR(self->mailbox);
    return TAKEN;
}

Outcome send_on(Inlet *self, const uint8_t *body, Py_ssize_t head_size, Py_ssize_t size)
{
    const uint8_t *head = body, *ends[MOST_RESTS];
    Rests rests;  /* a KiB that need not be zero */

    rests.count = 0;
    while (rests.count < MOST_RESTS) {
        rests.at[rests.count] = body + head_size;
        rests.sizes[rests.count] = size - head_size;
        ends[rests.count++] = body + size;
        const uint8_t *next = body + size;
        if (self->end - next < 4) break;
        size = u32_of(next);
        if (size >= LARGE || size > self->end - next - 4 || size <= head_size) break;
        body = next + 4;
        if (memcmp(body, head, (size_t)head_size) != 0) break;
    }
    PyObject *way = Py_NewRef(self->way);
    Py_ssize_t sent = pass_many_on(self->hot, way, &rests);
    Py_DECREF(way);
    if (sent <= 0) return sent < 0 ? FAILED : OTHER;
    self->more = sent - 1;
    self->behind = ends[sent - 1];
    return TAKEN;
}

/* How many bytes a reference takes here, 0 where there is none of the usual form. */
static Py_ssize_t size_of_reference(const uint8_t *at, Py_ssize_t left)
{
    if (left < 5 || at[0] != NEWER_REFERENCE_EXT || at[1] != 0 || at[3] != SMALL_ATOM_UTF8_EXT) return 0;
    Py_ssize_t size = 5 + at[4] + 4 + 4 * at[2];
    return size <= left && at[2] <= MAX_REFERENCE_WORDS ? size : 0;
}

Outcome answer_on(Inlet *self, const uint8_t *body, const uint8_t *at, const uint8_t *end)
{
    Py_ssize_t sender = size_of_pid(at, end - at);
    Py_ssize_t alias = sender == 0 ? 0 : size_of_reference(at + sender, end - at - sender);
    if (alias == 0 || at + sender + alias == end || PyDict_GET_SIZE(self->unread) == 0) return OTHER;
    PyObject *name = PyBytes_FromStringAndSize((const char *)body + 4, self->begin - 4);
    if (name == NULL) return FAILED;
    PyObject *way = Py_XNewRef(PyDict_GetItemWithError(self->unread, name));
    Py_DECREF(name);
    if (way == NULL) return PyErr_Occurred() ? FAILED : OTHER;
    int sent = pass_on(self->hot, way, body + self->begin, end - body - self->begin);
    Py_DECREF(way);
    return sent < 0 ? FAILED : sent > 0 ? TAKEN : OTHER;
}

/* Boundary.outgoing */
static int note_outgoing(Inlet *self, bool begins, PyObject *watcher, PyObject *watched, PyObject *ref, PyObject *node)
{
    Hot *hot = self->hot;
    PyObject *fields[] = {watcher, watched, ref};
    PyObject *control = PyObject_Vectorcall((PyObject *)(begins ? hot->monitor : hot->demonitor), fields, 3, NULL);
    PyObject *args[] = {self->boundary, control, node};
    PyObject *noted = control == NULL ? NULL : PyObject_VectorcallMethod(hot->names[OUTGOING], args, 3, NULL);
    Py_XDECREF(control);
    Py_XDECREF(noted);
    return noted == NULL ? -1 : 0;
}

Outcome watch_on(Inlet *self, bool begins, const uint8_t *body, const uint8_t *at, const uint8_t *end)
{
    State *etf = self->hot->etf;
    const uint8_t *front = body + 2, *first = body + self->begin;
    PyObject *watcher = NULL, *watched = NULL, *ref = NULL, *key = NULL, *way = NULL;
    Outcome outcome = OTHER;

    if (PyDict_GET_SIZE(self->lost) > 0) return OTHER;
    PyObject *where = read_one(self, &front, first, SMALL_ATOM_UTF8_EXT);
    if (where == NULL || Py_TYPE(where) != etf->atom.type) goto exit;
    PyObject *node = *slot(where, &etf->atom, 0);
    int here = node == NULL ? 1 : are_equal(node, self->node);
    if (here != 0) goto exit;
    watcher = read_one(self, &at, end, NEW_PID_EXT);
    if (watcher == NULL) goto exit;
    bool by_pid = at < end && *at == NEW_PID_EXT;
    watched = read_one(self, &at, end, by_pid ? NEW_PID_EXT : SMALL_ATOM_UTF8_EXT);
    ref = watched == NULL ? NULL : read_one(self, &at, end, NEWER_REFERENCE_EXT);
    if (ref == NULL || at != end || Py_TYPE(watcher) != etf->pid.type || Py_TYPE(ref) != etf->reference.type ||
        Py_TYPE(watched) != (by_pid ? etf->pid.type : etf->atom.type)) {
        goto exit;
    }
    PyObject *of_pid = by_pid ? *slot(watched, &etf->pid, 0) : node;
    if (of_pid == NULL || are_equal(of_pid, node) <= 0) goto exit;
    key = PyBytes_FromStringAndSize((const char *)body + 2, self->begin - 2);
    way = key == NULL ? NULL : way_by(self, key, Py_None, node);
    if (way == NULL) goto exit;
    Rests one;
    one.count = 1;
    one.at[0] = first;
    one.sizes[0] = end - first;
    Py_ssize_t sent = pass_many_on(self->hot, way, &one);
    if (sent > 0) sent = note_outgoing(self, begins, watcher, watched, ref, node) < 0 ? -1 : 1;
    outcome = sent < 0 ? FAILED : sent > 0 ? TAKEN : forget_way(self, key) < 0 ? FAILED : OTHER;
exit:
    Py_XDECREF(where);
    Py_XDECREF(watcher);
    Py_XDECREF(watched);
    Py_XDECREF(ref);
    Py_XDECREF(key);
    Py_XDECREF(way);
    return PyErr_Occurred() ? FAILED : outcome;
}
