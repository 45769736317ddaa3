/* Takes what a read begins with: messages to processes of this runtime, what calls bring and their ends.
 *
 * As `Connection.receive` does, down to `Mailbox.put_encoded`, `Signals.on_monitor` and `Signals.on_demonitor`. It stops
 * at the first frame that is anything else, is not complete, or means anything beyond that: that one and all behind it
 * are for Python. So the order is that of the frames.
 *
 * Whoever sends these bytes may be hostile: no length is used before it was held against what is there. Identifiers
 * are read by the codec. What is for a worker goes there with the bytes it came in.
 */

#include "inlet.h"

enum { LEAST = 24 * 1024 };     /* as in shared.py */

/* The link of a worker, which the caller holds; see `link_of`. */
static PyObject *link_of_worker(Inlet *self, PyObject *found, PyObject **worker)
{
    Hot *hot = self->hot;
    PyObject *link = PyObject_GetAttr(found, hot->names[PROTOCOL]);
    if (link == NULL) return NULL;
    if (!PyObject_TypeCheck(link, hot->link) || *field_at(link, hot->link_busy) != Py_False || !is_link_open(hot, link)) {
        Py_DECREF(link);
        return NULL;
    }
    if (worker != NULL) *worker = Py_NewRef(found);
    return link;
}

/* The link of the worker that a pid is in, where nothing is in its way, a new reference; NULL with or without an
 * exception. With `worker`, what the hub knows of that as well: Router._link_of */
static PyObject *link_of(Inlet *self, PyObject *pid, bool named, PyObject **worker)
{
    Hot *hot = self->hot;
    const Class *class = &hot->etf->pid;
    if (PyDict_GET_SIZE(self->links) == 0 || Py_TYPE(pid) != class->type) return NULL;
    PyObject *node = *slot(pid, class, 0), *serial = *slot(pid, class, 2), *creation = *slot(pid, class, 3);
    if (node == NULL || serial == NULL || creation == NULL) return NULL;
    if (!named && (are_equal(creation, self->creation) <= 0 || are_equal(node, self->node) <= 0)) return NULL;
    PyObject *found = Py_XNewRef(PyDict_GetItemWithError(self->links, serial));
    PyObject *link = found == NULL ? NULL : link_of_worker(self, found, worker);
    Py_XDECREF(found);
    return link;
}

/* Runtime.is_here, of a pid or the last word of a reference */
static int is_here(Inlet *self, PyObject *node, PyObject *creation, PyObject *serial)
{
    if (node == NULL || creation == NULL || serial == NULL) return 0;
    int same = are_equal(serial, self->serial);
    if (same > 0) same = are_equal(creation, self->creation);
    if (same > 0) same = are_equal(node, self->node);
    return same;
}

static int is_pid_here(Inlet *self, PyObject *pid)
{
    const Class *class = &self->hot->etf->pid;
    return is_here(self, *slot(pid, class, 0), *slot(pid, class, 3), *slot(pid, class, 2));
}

/* The process that a name stands for, a new reference; NULL where it is none of this runtime, or with an exception. */
static PyObject *process_of_pid(Inlet *self, PyObject *pid, bool named)
{
    const Class *class = &self->hot->etf->pid;
    if (Py_TYPE(pid) != class->type || *slot(pid, class, 1) == NULL || *slot(pid, class, 2) == NULL) return NULL;
    if (named ? are_equal(*slot(pid, class, 2), self->serial) <= 0 : is_pid_here(self, pid) <= 0) return NULL;
    return Py_XNewRef(PyDict_GetItemWithError(self->processes, *slot(pid, class, 1)));
}

/* The pid that the name in an atom stands for, a new reference; NULL for none, or with an exception. */
static PyObject *pid_of_name(Inlet *self, PyObject *atom)
{
    const Class *class = &self->hot->etf->atom;
    if (Py_TYPE(atom) != class->type || *slot(atom, class, 0) == NULL) return NULL;
    return Py_XNewRef(PyDict_GetItemWithError(self->names, *slot(atom, class, 0)));
}

/* An attribute that has to be there and of this type, a new reference; NULL with or without an exception. */
static PyObject *part_of(Hot *hot, PyObject *process, enum Name name, PyTypeObject *type)
{
    PyObject *part = PyObject_GetAttr(process, hot->names[name]);
    if (part != NULL && Py_TYPE(part) != type) Py_CLEAR(part);
    return part;
}

/* Whether an attribute is False. */
static bool is_false(Hot *hot, PyObject *object, enum Name name)
{
    PyObject *value = PyObject_GetAttr(object, hot->names[name]);
    Py_XDECREF(value);
    return value == Py_False;
}

/* --- messages -------------------------------------------------------------------------------------- */

Py_ssize_t size_of_pid(const uint8_t *at, Py_ssize_t left)
{
    if (left < 3 || at[0] != NEW_PID_EXT || at[1] != SMALL_ATOM_UTF8_EXT) return 0;
    Py_ssize_t size = 3 + at[2] + 12;
    return size <= left ? size : 0;
}

/* Whether its node has a name that any reader takes for one: what is not ASCII may be no UTF-8. */
static bool is_plainly_named(const uint8_t *pid)
{
    for (int i = 0; i < pid[2]; i++) {
        if (pid[3 + i] & 0x80) return false;
    }
    return true;
}

static Py_ssize_t size_of_atom(const uint8_t *at, Py_ssize_t left)
{
    if (left < 2 || at[0] != SMALL_ATOM_UTF8_EXT) return 0;
    Py_ssize_t size = 2 + at[1];
    return size <= left ? size : 0;
}

/* heads.is_system_message: false of none of those */
static bool may_be_system(const uint8_t *message, Py_ssize_t size)
{
    if (size < 4 || (message[0] != SMALL_TUPLE_EXT && message[0] != LARGE_TUPLE_EXT)) return false;
    if (message[0] == LARGE_TUPLE_EXT) return true;
    if (message[1] != 3) return false;
    Py_ssize_t at = message[2] == ATOM_EXT || message[2] == ATOM_UTF8_EXT ? 5 : 4;
    return size >= at + 6 && memcmp(message + at, "system", 6) == 0;
}

/* Find where messages with this control message go, where nothing but the mailbox has to see them:
 * Router.messages_from_peer, Runtime.receive_many_encoded, Process.put_many_encoded */
static Outcome find_mailbox(Inlet *self, PyObject *control)
{
    Hot *hot = self->hot;
    PyObject *process = NULL, *pending = NULL;
    Outcome outcome = OTHER;

    if (PyTuple_CheckExact(control) && PyTuple_GET_SIZE(control) == 2) {
        control = PyTuple_GET_ITEM(control, 0);
    }
    bool named = Py_TYPE(control) == hot->reg_send;
    if (!named && Py_TYPE(control) != hot->send) return OTHER;
    PyObject *to = Py_XNewRef(*field_at(control, named ? hot->reg_send_name : hot->send_to));
    if (to != NULL && named) Py_SETREF(to, pid_of_name(self, to));
    if (to == NULL) goto exit;
    PyObject *link = link_of(self, to, named, NULL);
    Py_CLEAR(self->way);
    if (link != NULL) {
        Py_XSETREF(self->link, link);
        outcome = TAKEN;
        goto exit;
    }
    Py_CLEAR(self->link);
    if (PyErr_Occurred()) goto exit;
    process = process_of_pid(self, to, named);
    if (process == NULL) goto exit;
    pending = part_of(hot, process, PENDING, hot->pending);
    PyObject *futures = pending == NULL ? NULL : *field_at(pending, hot->pending_futures);
    if (futures == NULL || !PyDict_CheckExact(futures) || PyDict_GET_SIZE(futures) > 0) goto exit;
    if (!is_false(hot, process, TOLD_SOURCE) || !is_false(hot, process, DEAF)) goto exit;
    self->sees_system = !is_false(hot, process, ANSWERS);
    if (PyErr_Occurred()) goto exit;
    PyObject *mailbox = part_of(hot, process, MAILBOX, hot->mailbox);
    if (mailbox == NULL) goto exit;
    Py_XSETREF(self->mailbox, mailbox);
    outcome = TAKEN;
exit:
    Py_XDECREF(to);
    Py_XDECREF(process);
    Py_XDECREF(pending);
    return PyErr_Occurred() ? FAILED : outcome;
}

/* Pass a frame on to a worker as it is, but for what is in front of the control message: link.FrameWriter.write */
static Outcome forward(Inlet *self, PyObject *link, const uint8_t *body, Py_ssize_t size)
{
    static const char from_nowhere[] = "h\2w\3nil";
    Py_ssize_t begin = self->begin;
    if (size >= LEAST) return OTHER;
    PyObject *frame = frame_from(from_nowhere, sizeof(from_nowhere) - 1, (const char *)body + begin, size - begin);
    int sent = frame == NULL ? -1 : put_on_link(self->hot, link, frame);
    Py_XDECREF(frame);
    return sent < 0 ? FAILED : sent > 0 ? TAKEN : OTHER;
}

static Outcome put(Inlet *self, const uint8_t *body, Py_ssize_t head_size, Py_ssize_t whole)
{
    if (self->link != NULL) return forward(self, self->link, body, whole);
    if (self->way != NULL) return send_on(self, body, head_size, whole);
    const uint8_t *message = body + head_size;
    Py_ssize_t size = whole - head_size;
    if (!self->sees_system && may_be_system(message, size)) return OTHER;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)message, size);
    int failed = bytes == NULL ? -1 : put_encoded(self->hot, self->mailbox, bytes);
    Py_XDECREF(bytes);
    return failed ? FAILED : TAKEN;
}

/* Begin a run of messages with a control message that ends there. */
static Outcome begin_run(Inlet *self, const uint8_t *body, Py_ssize_t head_size, Py_ssize_t size)
{
    self->head = NULL;
    PyObject *head = PyBytes_FromStringAndSize((const char *)body, head_size);
    PyObject *control = head == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(self->known, head));
    if (control == NULL) {
        Py_XDECREF(head);
        return PyErr_Occurred() ? FAILED : OTHER;
    }
    bool on = self->ways != NULL && goes_on(self, control);
    Outcome outcome = PyErr_Occurred() ? FAILED : on ? find_way_on(self, head, control) : find_mailbox(self, control);
    Py_DECREF(control);
    if (outcome == TAKEN) outcome = put(self, body, head_size, size);
    if (outcome == OTHER && on && forget_way(self, head) < 0) outcome = FAILED;
    Py_DECREF(head);
    if (outcome == TAKEN) {
        self->head = body;
        self->head_size = head_size;
    }
    return outcome;
}

/* --- what calls bring ------------------------------------------------------------------------------ */

PyObject *read_one(Inlet *self, const uint8_t **at, const uint8_t *end, int tag)
{
    State *state = self->hot->etf;
    Reader reader;

    if (*at >= end || **at != tag) return NULL;
    state->begin_reading(&reader, state, *at, 0, end - *at);
    PyObject *term = state->read_term(&reader);
    state->end_reading(&reader);
    *at += reader.pos;
    if (term == NULL && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();  /* Python finds it again */
    }
    return term;
}

/* Whether a pid or a reference is of the node that these come from. */
static int is_peers(Inlet *self, PyObject *node)
{
    return node == NULL ? 0 : self->peer == Py_None ? 1 : are_equal(node, self->peer);
}

/* Signals.on_monitor */
static int note(Inlet *self, PyObject *process, PyObject *watcher, PyObject *watched, PyObject *ref)
{
    Hot *hot = self->hot;
    PyObject *signals = part_of(hot, process, SIGNALS, hot->signals);
    if (signals == NULL) return PyErr_Occurred() ? -1 : 0;
    int failed = -1;
    PyObject *at = *field_at(signals, hot->signals_watchers);
    PyObject *of_node = at == NULL || !PyDict_CheckExact(at)
        ? NULL : PyDict_GetItemWithError(at, *slot(watcher, &hot->etf->pid, 0));
    if (of_node != NULL && PyDict_CheckExact(of_node)) {
        Py_INCREF(of_node);  /* the garbage collector may run, and so anything */
        PyObject *pair = PyTuple_Pack(2, watcher, watched);
        failed = pair == NULL ? -1 : PyDict_SetItem(of_node, ref, pair);
        Py_XDECREF(pair);
        Py_DECREF(of_node);
    }
    else if (!PyErr_Occurred()) {
        PyObject *args[] = {signals, watcher, watched, ref};
        PyObject *effects = PyObject_VectorcallMethod(hot->names[ON_MONITOR], args, 4, NULL);
        failed = effects == NULL ? -1 : 0;
        Py_XDECREF(effects);
    }
    Py_DECREF(signals);
    return failed;
}

/* Signals.on_demonitor */
static int forget(Inlet *self, PyObject *process, PyObject *watcher, PyObject *ref)
{
    Hot *hot = self->hot;
    PyObject *signals = part_of(hot, process, SIGNALS, hot->signals);
    if (signals == NULL) return PyErr_Occurred() ? -1 : 0;
    int failed = 0;
    PyObject *at = *field_at(signals, hot->signals_watchers);
    PyObject *of_node = at == NULL || !PyDict_CheckExact(at)
        ? NULL : Py_XNewRef(PyDict_GetItemWithError(at, *slot(watcher, &hot->etf->pid, 0)));
    PyObject *known =
        of_node == NULL || !PyDict_CheckExact(of_node) ? NULL : Py_XNewRef(PyDict_GetItemWithError(of_node, ref));
    if (known != NULL && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 2) {
        int same = are_equal(PyTuple_GET_ITEM(known, 0), watcher);
        failed = same <= 0 ? same : PyDict_DelItem(of_node, ref);
    }
    else if (PyErr_Occurred()) {
        failed = -1;
    }
    Py_XDECREF(known);
    Py_XDECREF(of_node);
    Py_DECREF(signals);
    return failed;
}

/* Boundary.watched, Boundary.unwatched: 0, or -1 */
static int note_for_worker(Inlet *self, PyObject *worker, bool begins, PyObject *watcher, PyObject *watched, PyObject *ref)
{
    Hot *hot = self->hot;
    PyObject *boundary = PyObject_GetAttr(worker, hot->names[BOUNDARY]);
    PyObject *watchers = boundary == NULL ? NULL : PyObject_GetAttr(boundary, hot->names[WATCHERS]);
    Py_XDECREF(boundary);
    if (watchers == NULL) return -1;
    int failed = -1;
    PyObject *node = *slot(watcher, &hot->etf->pid, 0), *of_node = NULL;
    if (!PyDict_CheckExact(watchers)) {
        PyErr_SetString(PyExc_TypeError, "watchers of a boundary are in a dict");
        goto exit;
    }
    of_node = Py_XNewRef(PyDict_GetItemWithError(watchers, node));
    if (of_node == NULL && PyErr_Occurred()) goto exit;
    if (of_node == NULL && begins) {
        of_node = PyDict_New();
        if (of_node == NULL || PyDict_SetItem(watchers, node, of_node) < 0) goto exit;
    }
    if (of_node == NULL) {
        failed = 0;
    }
    else if (begins) {
        PyObject *pair = PyTuple_Pack(2, watcher, watched);
        failed = pair == NULL ? -1 : PyDict_SetItem(of_node, ref, pair);
        Py_XDECREF(pair);
    }
    else {
        int known = PyDict_Contains(of_node, ref);
        failed = known <= 0 ? known : PyDict_DelItem(of_node, ref);
    }
exit:
    Py_XDECREF(of_node);
    Py_DECREF(watchers);
    return failed;
}

/* Router._link_of_watched, WorkerLink.watch, of a process of a worker */
static Outcome watch_in_worker(
    Inlet *self, bool begins, PyObject *watcher, PyObject *watched, PyObject *ref, const uint8_t *body, Py_ssize_t size)
{
    bool by_pid = Py_TYPE(watched) == self->hot->etf->pid.type;
    PyObject *worker = NULL, *link = NULL;
    int failed = 0;

    PyObject *known = Py_XNewRef(PyDict_GetItemWithError(self->named, ref));
    if (by_pid || begins) {
        PyObject *pid = known != NULL || PyErr_Occurred() ? NULL
            : by_pid ? Py_NewRef(watched) : pid_of_name(self, watched);
        link = pid == NULL ? NULL : link_of(self, pid, !by_pid, &worker);
        Py_XDECREF(pid);
    }
    else if (known != NULL && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 2 &&
             are_equal(PyTuple_GET_ITEM(known, 0), watcher) > 0) {
        link = link_of_worker(self, PyTuple_GET_ITEM(known, 1), &worker);
    }
    Py_XDECREF(known);
    if (link == NULL) return PyErr_Occurred() ? FAILED : OTHER;
    if (!by_pid && begins) {
        PyObject *pair = PyTuple_Pack(2, watcher, worker);
        failed = pair == NULL ? -1 : PyDict_SetItem(self->named, ref, pair);
        Py_XDECREF(pair);
    }
    else if (!by_pid) {
        failed = PyDict_DelItem(self->named, ref);
    }
    if (!failed) failed = note_for_worker(self, worker, begins, watcher, watched, ref);
    Outcome outcome = failed ? FAILED : forward(self, link, body, size);
    Py_DECREF(worker);
    Py_DECREF(link);
    return outcome;
}

/* Router._link_of_watched, Runtime._note_watcher, of a process of this runtime */
static Outcome watch(Inlet *self, bool begins, PyObject *watcher, PyObject *watched, PyObject *ref)
{
    Hot *hot = self->hot;
    bool by_pid = Py_TYPE(watched) == hot->etf->pid.type;
    PyObject *pid = NULL, *process = NULL;
    int failed = 0;

    if (PyDict_GET_SIZE(self->named) > 0) {
        int known = PyDict_Contains(self->named, ref);
        if (known != 0) return known < 0 ? FAILED : OTHER;
    }
    if (by_pid) {
        pid = Py_NewRef(watched);
    }
    else if (begins) {
        pid = pid_of_name(self, watched);
    }
    else {
        PyObject *known = Py_XNewRef(PyDict_GetItemWithError(self->named_monitors, ref));
        if (known != NULL && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 2 &&
            are_equal(PyTuple_GET_ITEM(known, 1), watcher) > 0) {
            pid = Py_NewRef(PyTuple_GET_ITEM(known, 0));
        }
        Py_XDECREF(known);
    }
    process = pid == NULL ? NULL : process_of_pid(self, pid, !by_pid);
    if (process == NULL) {
        Py_XDECREF(pid);
        return PyErr_Occurred() ? FAILED : OTHER;
    }
    if (by_pid && PyDict_GET_SIZE(self->named_monitors) > 0) {
        int known = PyDict_Contains(self->named_monitors, ref);
        failed = known <= 0 ? known : PyDict_DelItem(self->named_monitors, ref);
    }
    else if (!by_pid && begins) {
        PyObject *pair = PyTuple_Pack(2, pid, watcher);
        failed = pair == NULL ? -1 : PyDict_SetItem(self->named_monitors, ref, pair);
        Py_XDECREF(pair);
    }
    else if (!by_pid) {
        failed = PyDict_DelItem(self->named_monitors, ref);
    }
    if (!failed) {
        failed = begins ? note(self, process, watcher, watched, ref) : forget(self, process, watcher, ref);
    }
    Py_DECREF(process);
    Py_DECREF(pid);
    return failed < 0 ? FAILED : TAKEN;
}

/* MONITOR_P or DEMONITOR_P, from its first field on. */
static Outcome take_watch(Inlet *self, bool begins, const uint8_t *at, const uint8_t *end, const uint8_t *body)
{
    State *etf = self->hot->etf;
    PyObject *watched = NULL, *ref = NULL;
    Outcome outcome = OTHER;

    PyObject *watcher = read_one(self, &at, end, NEW_PID_EXT);
    if (watcher == NULL) return OTHER;
    bool by_pid = at < end && *at == NEW_PID_EXT;
    watched = read_one(self, &at, end, by_pid ? NEW_PID_EXT : SMALL_ATOM_UTF8_EXT);
    ref = watched == NULL ? NULL : read_one(self, &at, end, NEWER_REFERENCE_EXT);
    if (ref == NULL || at != end) goto exit;
    int right = Py_TYPE(watcher) == etf->pid.type && Py_TYPE(ref) == etf->reference.type &&
        Py_TYPE(watched) == (by_pid ? etf->pid.type : etf->atom.type);
    if (right > 0) right = is_peers(self, *slot(watcher, &etf->pid, 0));
    if (right > 0) right = is_peers(self, *slot(ref, &etf->reference, 0));
    outcome = right < 0 ? FAILED : OTHER;
    if (right > 0) outcome = watch(self, begins, watcher, watched, ref);
    if (right > 0 && outcome == OTHER && PyDict_GET_SIZE(self->links) > 0) {
        outcome = watch_in_worker(self, begins, watcher, watched, ref, body, end - body);
    }
exit:
    Py_DECREF(watcher);
    Py_XDECREF(watched);
    Py_XDECREF(ref);
    return outcome;
}

/* Runtime._receive_message, of what comes for an alias: that is Python's, and the source is told to it. */
static Outcome answer(Inlet *self, PyObject *ref, const uint8_t *message, Py_ssize_t size)
{
    Hot *hot = self->hot;
    PyObject *payload = PyBytes_FromStringAndSize((const char *)message, size);
    if (payload == NULL || PyObject_SetAttr(self->runtime, hot->names[SOURCE], self->peer) < 0) {
        Py_XDECREF(payload);
        return FAILED;
    }
    PyObject *args[] = {self->runtime, Py_None, ref, payload};
    PyObject *done = PyObject_VectorcallMethod(hot->names[RECEIVE_MESSAGE], args, 4, NULL);
    Py_DECREF(payload);
    PyObject *error = done == NULL ? take_error() : NULL;
    int failed = PyObject_SetAttr(self->runtime, hot->names[SOURCE], Py_None);
    if (error != NULL) put_error_back(error);
    Py_XDECREF(done);
    return done == NULL || failed < 0 ? FAILED : TAKEN;
}

/* Pending.answer, of what comes for a reference that a call here waits for. */
static Outcome settle_call(Inlet *self, PyObject *ref, const uint8_t *bytes, Py_ssize_t size)
{
    Hot *hot = self->hot;
    PyObject *limits = PyObject_GetAttr(self->runtime, hot->names[LIMITS]);
    if (limits == NULL) return FAILED;
    Py_DECREF(limits);
    if (limits != hot->etf->default_limits) return OTHER;
    PyObject *process = Py_XNewRef(PyDict_GetItemWithError(self->aliases, ref));
    PyObject *pending = process == NULL ? NULL : part_of(hot, process, PENDING, hot->pending);
    Py_XDECREF(process);
    if (pending == NULL) return PyErr_Occurred() ? FAILED : OTHER;
    Outcome outcome = OTHER;
    PyObject *futures = *field_at(pending, hot->pending_futures), *message = NULL, *answered = NULL;
    PyObject *future = NULL;
    if (futures == NULL || !PyDict_CheckExact(futures)) goto exit;
    PyObject *one = PyDict_GetItemWithError(futures, ref);
    if (one == NULL || Py_TYPE(one) != hot->waiter) goto exit;
    PyObject *payload = PyBytes_FromStringAndSize((const char *)bytes, size);
    message = payload == NULL ? NULL : read_quickly(hot, payload);
    Py_XDECREF(payload);
    if (message == NULL || !PyTuple_CheckExact(message) || PyTuple_GET_SIZE(message) != 2) goto exit;
    PyObject *tag = PyTuple_GET_ITEM(message, 0);
    if (Py_TYPE(tag) == hot->etf->improper_list.type) tag = *slot(tag, &hot->etf->improper_list, 1);
    if (tag == NULL || Py_TYPE(tag) != hot->etf->reference.type) goto exit;
    future = Py_XNewRef(PyDict_GetItemWithError(futures, tag));
    if (future == NULL || Py_TYPE(future) != hot->waiter ||
        *field_at(future, hot->waiter_result) != hot->unsettled) {
        goto exit;
    }
    answered = PyTuple_Pack(2, Py_True, PyTuple_GET_ITEM(message, 1));
    if (answered == NULL || *field_at(future, hot->waiter_result) != hot->unsettled) goto exit;
    outcome = settle(hot, future, answered) < 0 ? FAILED : TAKEN;
exit:
    Py_XDECREF(future);
    Py_XDECREF(answered);
    Py_XDECREF(message);
    Py_DECREF(pending);
    return PyErr_Occurred() ? FAILED : outcome;
}

/* ALIAS_SEND with its message, from its first field on. */
static Outcome take_answer(Inlet *self, const uint8_t *at, const uint8_t *end)
{
    const Class *class = &self->hot->etf->reference;
    Outcome outcome = OTHER;

    Py_ssize_t size = size_of_pid(at, end - at);
    if (size == 0 || !is_plainly_named(at)) return OTHER;
    at += size;
    PyObject *ref = read_one(self, &at, end, NEWER_REFERENCE_EXT);
    if (ref == NULL) return OTHER;
    PyObject *words = Py_TYPE(ref) == class->type ? *slot(ref, class, 2) : NULL;
    if (at < end && words != NULL && PyTuple_CheckExact(words) && PyTuple_GET_SIZE(words) > 0) {
        PyObject *last = PyTuple_GET_ITEM(words, PyTuple_GET_SIZE(words) - 1);
        int here = is_here(self, *slot(ref, class, 0), *slot(ref, class, 1), last);
        if (here > 0) here = PyDict_Contains(self->aliases, ref);
        outcome = here < 0 ? FAILED : here == 0 ? OTHER : settle_call(self, ref, at, end - at);
        if (here > 0 && outcome == OTHER) outcome = answer(self, ref, at, end - at);
    }
    Py_DECREF(ref);
    return outcome;
}

/* --- frames ---------------------------------------------------------------------------------------- */

static Outcome take_frame(Inlet *self, const uint8_t *body, Py_ssize_t size)
{
    if (self->head != NULL && size > self->head_size && memcmp(body, self->head, (size_t)self->head_size) == 0) {
        return put(self, body, self->head_size, size);
    }
    Py_ssize_t begin = PyBytes_GET_SIZE(self->begins);
    if (self->ways != NULL) {
        if (size < 4 || body[0] != SMALL_TUPLE_EXT || body[1] != 2 || body[2] != SMALL_ATOM_UTF8_EXT) return OTHER;
        begin = 4 + body[3];
    }
    else if (size < begin || memcmp(body, PyBytes_AS_STRING(self->begins), (size_t)begin) != 0) {
        return OTHER;
    }
    if (size < begin + 4) return OTHER;
    self->begin = begin;
    const uint8_t *at = body + begin, *end = body + size;
    if (at[0] != SMALL_TUPLE_EXT || at[2] != SMALL_INTEGER_EXT) return OTHER;
    int arity = at[1], op = at[3];
    at += 4;
    if (self->runs >= self->most) return OTHER;
    self->runs++;
    if (arity == 3 && op == SEND_SENDER) {
        Py_ssize_t sender = size_of_pid(at, end - at);
        Py_ssize_t to = sender == 0 ? 0 : size_of_pid(at + sender, end - at - sender);
        if (to == 0 || at + sender + to == end) return OTHER;
        return begin_run(self, body, at + sender + to - body, size);
    }
    if (arity == 4 && op == REG_SEND) {
        Py_ssize_t sender = size_of_pid(at, end - at);
        Py_ssize_t cookie = sender == 0 ? 0 : size_of_atom(at + sender, end - at - sender);
        Py_ssize_t name = cookie == 0 ? 0 : size_of_atom(at + sender + cookie, end - at - sender - cookie);
        if (name == 0 || at + sender + cookie + name == end) return OTHER;
        return begin_run(self, body, at + sender + cookie + name - body, size);
    }
    self->head = NULL;
    bool watches = arity == 4 && (op == MONITOR_P || op == DEMONITOR_P), answers = arity == 3 && op == ALIAS_SEND;
    if (self->ways != NULL) {
        if (watches) return watch_on(self, op == MONITOR_P, body, at, end);
        Outcome outcome = answers ? answer_on(self, body, at, end) : OTHER;
        if (outcome != OTHER) return outcome;
    }
    else if (watches) {
        return take_watch(self, op == MONITOR_P, at, end, body);
    }
    return answers ? take_answer(self, at, end) : OTHER;
}

Py_ssize_t take_frames(PyObject *inlet, PyObject *read, Py_ssize_t end, Py_ssize_t most)
{
    Inlet *self = (Inlet *)inlet;
    Py_buffer view;
    Py_ssize_t at = 0;
    Outcome outcome = TAKEN;

    if (self->takes) return 0;  /* whatever calls this while frames are taken: it is for Python */
    self->most = most;
    self->taken = self->frames = self->runs = 0;
    PyObject *handling = PyObject_GetAttr(self->runtime, self->hot->names[HANDLING]);
    Py_XDECREF(handling);
    if (handling == NULL) return -1;
    if (handling != Py_False) return 0;
    if (PyObject_GetBuffer(read, &view, PyBUF_SIMPLE) < 0) return -1;
    end = Py_MIN(end, view.len);
    const uint8_t *data = view.buf;
    self->end = data + end;
    self->takes = true;
    while (end - at >= 4) {
        Py_ssize_t size = u32_of(data + at);
        if (size >= LARGE || size > end - at - 4) break;
        self->more = 0;
        outcome = take_frame(self, data + at + 4, size);
        if (outcome == OTHER && PyErr_Occurred()) outcome = FAILED;
        if (outcome == OTHER) break;
        at = self->more > 0 ? self->behind - data : at + 4 + size;
        self->frames += 1 + self->more;
        if (outcome == FAILED) break;
    }
    self->takes = false;
    self->head = NULL;
    self->taken = at;
    Py_CLEAR(self->mailbox);
    Py_CLEAR(self->link);
    Py_CLEAR(self->way);
    PyBuffer_Release(&view);
    return outcome == FAILED ? -1 : at;
}

/* take(data, size, most): see inlet.py */
static PyObject *inlet_take(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "take() takes what was received, its size, and how many runs");
        return NULL;
    }
    Py_ssize_t end = PyLong_AsSsize_t(args[1]), most = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred()) return NULL;
    Py_ssize_t at = take_frames(self, args[0], end, most);
    return at < 0 ? NULL : PyLong_FromSsize_t(at);
}

Py_ssize_t frames_taken(PyObject *inlet)
{
    return ((Inlet *)inlet)->frames;
}

Py_ssize_t taken_bytes(PyObject *inlet)
{
    return ((Inlet *)inlet)->taken;
}

/* --- the type -------------------------------------------------------------------------------------- */

#define EACH(what) \
    what(begins); what(known); what(runtime); what(peer); what(named); what(links); what(link); what(names); what(processes); what(aliases); \
    what(unread); what(ways); what(find_way); what(boundary); what(lost); what(way); \
    what(named_monitors); what(node); what(serial); what(creation); what(mailbox)

static int inlet_traverse(Inlet *self, visitproc visit, void *arg)
{
#define VISIT(name) Py_VISIT(self->name)
    EACH(VISIT);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int inlet_clear(Inlet *self)
{
#define CLEAR(name) Py_CLEAR(self->name)
    EACH(CLEAR);
    return 0;
}

static void inlet_dealloc(Inlet *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    inlet_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* An attribute that is of this type, or of one made of it as an enumeration's strings are; a new reference. After a failure
 * there are no further ones. */
static PyObject *attribute_of(PyObject *object, const char *name, PyTypeObject *type)
{
    if (PyErr_Occurred()) return NULL;
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value != NULL && !PyObject_TypeCheck(value, type)) {
        PyErr_Format(PyExc_TypeError, "%s of a runtime is no %s", name, type->tp_name);
        Py_CLEAR(value);
    }
    return value;
}

static PyObject *inlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *begins, *known, *runtime, *peer, *named, *links, *unread = NULL, *ways = NULL, *find_way = NULL;
    PyObject *boundary = NULL, *lost = NULL;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Inlet() takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(
            args, "SO!OOO!O!|(O!O!OOO!):Inlet", &begins, &PyDict_Type, &known, &runtime, &peer, &PyDict_Type, &named,
            &PyDict_Type, &links, &PyDict_Type, &unread, &PyDict_Type, &ways, &find_way, &boundary, &PyDict_Type, &lost)) {
        return NULL;
    }
    Inlet *self = (Inlet *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->hot = PyType_GetModuleState(type);
    self->begins = Py_NewRef(begins);
    self->known = Py_NewRef(known);
    self->runtime = Py_NewRef(runtime);
    self->peer = Py_NewRef(peer);
    self->named = Py_NewRef(named);
    self->links = Py_NewRef(links);
    self->unread = Py_XNewRef(unread);
    self->ways = Py_XNewRef(ways);
    self->find_way = Py_XNewRef(find_way);
    self->boundary = Py_XNewRef(boundary);
    self->lost = Py_XNewRef(lost);
    self->names = attribute_of(runtime, "names", &PyDict_Type);
    self->processes = attribute_of(runtime, "processes", &PyDict_Type);
    self->aliases = attribute_of(runtime, "aliases", &PyDict_Type);
    self->named_monitors = attribute_of(runtime, "_named_monitors", &PyDict_Type);
    self->node = attribute_of(runtime, "node", &PyUnicode_Type);
    self->serial = attribute_of(runtime, "serial", &PyLong_Type);
    self->creation = attribute_of(runtime, "creation", &PyLong_Type);
    if (self->names == NULL || self->processes == NULL || self->aliases == NULL || self->named_monitors == NULL ||
        self->node == NULL || self->serial == NULL || self->creation == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyMethodDef inlet_methods[] = {
    {"take", (PyCFunction)(void (*)(void))inlet_take, METH_FASTCALL,
     "take(data, size, most, /)\n--\n\nTake what this begins with; see inlet.py."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef inlet_members[] = {
    {"taken", T_PYSSIZET, offsetof(Inlet, taken), READONLY, "Bytes that were taken last."},
    {"frames", T_PYSSIZET, offsetof(Inlet, frames), READONLY, "Frames that these were."},
    {"runs", T_PYSSIZET, offsetof(Inlet, runs), READONLY, "Runs that these were, and perhaps one more."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot inlet_slots[] = {
    {Py_tp_new, inlet_new},
    {Py_tp_dealloc, inlet_dealloc},
    {Py_tp_traverse, inlet_traverse},
    {Py_tp_clear, inlet_clear},
    {Py_tp_methods, inlet_methods},
    {Py_tp_members, inlet_members},
    {0, NULL},
};

PyType_Spec inlet_spec = {
    .name = "pyglyn.node._hot.Inlet",
    .basicsize = sizeof(Inlet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = inlet_slots,
};
