/* Who waits goes on, and takes what came: methods of loop_turn.Turn, loop_turn.Waiter and mailbox.Mailbox.
 *
 * `install` puts them into these classes and keeps the functions of Python, which do whatever is not as it nearly always is.
 */

#include "hot.h"

enum { FAIRNESS = 128 };        /* as in mailbox.py */

static Hot *hot;                /* of the one interpreter that has this module */

Hot *the_hot(void)
{
    return hot;
}

/* --- turns ----------------------------------------------------------------------------------------- */

PyObject *take_error(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(traceback);
    Py_DECREF(type);
    return value;
#endif
}

void put_error_back(PyObject *error)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* Turn._say, of the present exception, if it is no more than `least`: 0, or -1 with an exception */
static int say(PyObject *turn, PyObject *function, bool any)
{
    if (any ? PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
            : !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *error = take_error();
    PyObject *args[] = {turn, function, error};
    PyObject *said = PyObject_VectorcallMethod(hot->names[SAY], args, 3, NULL);
    Py_DECREF(error);
    Py_XDECREF(said);
    return said == NULL ? -1 : 0;
}

/* Waiter.go_on */
static int go_on(PyObject *waiter)
{
    if (Py_TYPE(waiter) != hot->waiter || *field_at(waiter, hot->waiter_more) != Py_None) {
        return call_method(waiter, hot->names[GO_ON]);
    }
    PyObject *callback = *field_at(waiter, hot->waiter_callback), *context = *field_at(waiter, hot->waiter_context);
    PyObject *result = *field_at(waiter, hot->waiter_result), *turn = *field_at(waiter, hot->waiter_turn);
    if (callback == NULL || context == NULL || result == NULL || turn == NULL ||
        (context != Py_None && !PyContext_CheckExact(context))) {
        return call_method(waiter, hot->names[GO_ON]);
    }
    if (callback == Py_None || context == Py_None || result == hot->unsettled) return 0;
    *field_at(waiter, hot->waiter_callback) = Py_NewRef(Py_None);  /* what was there is ours now */
    *field_at(waiter, hot->waiter_context) = Py_NewRef(Py_None);
    Py_INCREF(turn);
    int failed = PyContext_Enter(context);
    if (!failed) {
        PyObject *done = PyObject_CallOneArg(callback, waiter);
        PyObject *error = done == NULL ? take_error() : NULL;
        Py_XDECREF(done);
        failed = PyContext_Exit(context);
        if (error != NULL) {
            put_error_back(error);
            failed = -1;
        }
    }
    if (failed) failed = say(turn, callback, true);
    Py_DECREF(turn);
    Py_DECREF(callback);
    Py_DECREF(context);
    return failed;
}

/* deque.popleft, a new reference */
static PyObject *take_first(PyObject *deque)
{
    return PyObject_CallOneArg(hot->popleft, deque);
}

static int soon(PyObject *turn)
{
    return call_method(turn, hot->names[SOON]);
}

/* Do what is to be done last. */
static int do_last(PyObject *turn)
{
    PyObject *last = *field_at(turn, hot->turn_last);
    if (last == NULL || !PyList_CheckExact(last)) {
        PyErr_SetString(PyExc_TypeError, "what a turn does last is no list");
        return -1;
    }
    if (PyList_GET_SIZE(last) == 0) return 0;
    PyObject *next = PyList_New(0);
    if (next == NULL) return -1;
    *field_at(turn, hot->turn_last) = next;
    int failed = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(last) && !failed; i++) {
        PyObject *function = Py_NewRef(PyList_GET_ITEM(last, i));
        PyObject *done = PyObject_CallNoArgs(function);
        if (done == NULL) failed = say(turn, function, false);
        Py_XDECREF(done);
        Py_DECREF(function);
    }
    Py_DECREF(last);
    return failed;
}

/* Turn.end */
static PyObject *turn_end(PyObject *turn, PyObject *Py_UNUSED(ignored))
{
    PyObject *settled = Py_XNewRef(*field_at(turn, hot->turn_settled));
    Py_ssize_t count = settled == NULL ? -1 : PyObject_Size(settled);
    int failed = count < 0 ? -1 : 0;

    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        PyObject *waiter = take_first(settled);
        failed = waiter == NULL ? -1 : go_on(waiter);
        Py_XDECREF(waiter);
    }
    PyObject *error = failed ? take_error() : NULL;
    PyObject *second = do_last(turn) < 0 ? take_error() : NULL;
    set_field(turn, hot->turn_open, Py_False);  /* whatever happened: one that stays open ends all turns of the loop */
    PyObject *last = *field_at(turn, hot->turn_last);
    Py_ssize_t left = settled == NULL ? 0 : PyObject_Size(settled);
    bool more = left > 0 || (last != NULL && PyList_CheckExact(last) && PyList_GET_SIZE(last) > 0);
    failed = left < 0 || (more && soon(turn) < 0);
    Py_XDECREF(settled);
    PyObject *third = failed ? take_error() : NULL;
    if (third != NULL || second != NULL) {  /* the last one, as in Python */
        Py_XSETREF(error, third != NULL ? Py_NewRef(third) : Py_NewRef(second));
    }
    Py_XDECREF(second);
    Py_XDECREF(third);
    if (error == NULL) Py_RETURN_NONE;
    put_error_back(error);
    return NULL;
}

/* Turn.begin */
static PyObject *turn_begin(PyObject *turn, PyObject *Py_UNUSED(ignored))
{
    PyObject *loop = *field_at(turn, hot->turn_loop);
    if (*field_at(turn, hot->turn_open) != Py_False || loop == NULL) Py_RETURN_FALSE;
    PyObject *task = PyObject_CallOneArg(hot->running, loop);
    if (task == NULL) return NULL;
    Py_DECREF(task);
    if (task != Py_None) Py_RETURN_FALSE;
    set_field(turn, hot->turn_open, Py_True);
    Py_RETURN_TRUE;
}

/* Turn.at_end */
static PyObject *turn_at_end(PyObject *turn, PyObject *function)
{
    PyObject *last = *field_at(turn, hot->turn_last);
    if (last == NULL || !PyList_CheckExact(last)) {
        PyErr_SetString(PyExc_TypeError, "what a turn does last is no list");
        return NULL;
    }
    if (PyList_Append(last, function) < 0) return NULL;
    if (*field_at(turn, hot->turn_open) != Py_True && soon(turn) < 0) return NULL;
    Py_RETURN_NONE;
}

int begin_turn(PyObject *turn)
{
    PyObject *begun = Py_TYPE(turn) == hot->turn ? turn_begin(turn, NULL) : PyObject_CallMethod(turn, "begin", NULL);
    Py_XDECREF(begun);
    return begun == NULL ? -1 : begun == Py_True;
}

int end_turn(PyObject *turn)
{
    PyObject *ended = Py_TYPE(turn) == hot->turn ? turn_end(turn, NULL) : PyObject_CallMethod(turn, "end", NULL);
    Py_XDECREF(ended);
    return ended == NULL ? -1 : 0;
}

/* --- waiters --------------------------------------------------------------------------------------- */

/* Waiter.wake */
static PyObject *waiter_wake(PyObject *waiter, PyObject *Py_UNUSED(ignored))
{
    if (wake(hot, waiter) < 0) return NULL;
    Py_RETURN_NONE;
}

static int make_anew(PyObject *waiter)
{
    PyObject *callback = *field_at(waiter, hot->waiter_callback);
    if (callback != Py_None) return -1;
    set_field(waiter, hot->waiter_result, hot->unsettled);
    set_field(waiter, hot->waiter_error, Py_None);
    set_field(waiter, hot->waiter_blocking, Py_True);
    return 0;
}

/* Waiter.add_done_callback, as tasks call it */
static PyObject *waiter_add_done_callback(PyObject *waiter, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs == 1 && kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "context") == 0 && args[1] != Py_None &&
        *field_at(waiter, hot->waiter_callback) == Py_None && *field_at(waiter, hot->waiter_result) == hot->unsettled) {
        set_field(waiter, hot->waiter_callback, args[0]);
        set_field(waiter, hot->waiter_context, args[1]);
        Py_RETURN_NONE;
    }
    PyObject *all[4];
    if (nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames)) > 3) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a callback, and its context");
        return NULL;
    }
    all[0] = waiter;
    for (Py_ssize_t i = 0; i < nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames)); i++) {
        all[i + 1] = args[i];
    }
    return PyObject_Vectorcall(hot->of_python[ADD_DONE_CALLBACK], all, (size_t)nargs + 1, kwnames);
}

/* Waiter.result */
static PyObject *waiter_result(PyObject *waiter, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = *field_at(waiter, hot->waiter_result);
    if (result != NULL && result != hot->unsettled && *field_at(waiter, hot->waiter_error) == Py_None) {
        return Py_NewRef(result);
    }
    return PyObject_CallOneArg(hot->of_python[RESULT], waiter);
}

/* Waiter.set_result */
static PyObject *waiter_set_result(PyObject *waiter, PyObject *result)
{
    if (Py_TYPE(waiter) != hot->waiter || *field_at(waiter, hot->waiter_result) != hot->unsettled) {
        PyObject *args[] = {waiter, result};
        return PyObject_Vectorcall(hot->of_python[SET_RESULT], args, 2, NULL);
    }
    if (settle(hot, waiter, result) < 0) return NULL;
    Py_RETURN_NONE;
}

/* Waiter.__init__, where the turn is known */
static PyObject *waiter_init(PyObject *waiter, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 1 || Py_TYPE(args[0]) != hot->turn) {
        PyObject *all[] = {waiter, nargs > 0 ? args[0] : NULL};
        if (nargs > 1) {
            PyErr_SetString(PyExc_TypeError, "Waiter() takes the turn that it goes on in");
            return NULL;
        }
        return PyObject_Vectorcall(hot->of_python[INIT], all, (size_t)nargs + 1, NULL);
    }
    set_field(waiter, hot->waiter_turn, args[0]);
    set_field(waiter, hot->waiter_blocking, Py_False);
    set_field(waiter, hot->waiter_callback, Py_None);
    set_field(waiter, hot->waiter_context, Py_None);
    set_field(waiter, hot->waiter_more, Py_None);
    set_field(waiter, hot->waiter_result, hot->unsettled);
    set_field(waiter, hot->waiter_error, Py_None);
    Py_RETURN_NONE;
}

/* Waiter.__await__ */
typedef struct {
    PyObject_HEAD
    PyObject *waiter;           /* NULL at the end */
    bool waits;
} Awaiting;

static PyObject *waiter_await(PyObject *waiter, PyObject *Py_UNUSED(ignored))
{
    Awaiting *awaiting = PyObject_GC_New(Awaiting, hot->awaiting);
    if (awaiting == NULL) return NULL;
    awaiting->waiter = Py_NewRef(waiter);
    awaiting->waits = false;
    PyObject_GC_Track(awaiting);
    return (PyObject *)awaiting;
}

static PySendResult awaiting_send(Awaiting *awaiting, PyObject *Py_UNUSED(value), PyObject **result)
{
    PyObject *waiter = awaiting->waiter;
    *result = NULL;
    if (waiter == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse what was awaited already");
        return PYGEN_ERROR;
    }
    if (*field_at(waiter, hot->waiter_result) == hot->unsettled && !awaiting->waits) {
        set_field(waiter, hot->waiter_blocking, Py_True);
        awaiting->waits = true;
        *result = Py_NewRef(waiter);
        return PYGEN_NEXT;
    }
    awaiting->waiter = NULL;
    *result = waiter_result(waiter, NULL);  /* says what is wrong where it is not settled */
    Py_DECREF(waiter);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* What a generator does that returns. */
static PyObject *stop_with(PyObject *result)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *raise_given(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    PyObject *type = args[0], *value = nargs > 1 ? args[1] : Py_None;
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    }
    else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value == Py_None ? NULL : value);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
    }
    return NULL;
}

static PyObject *awaiting_next(Awaiting *awaiting)
{
    PyObject *result;
    return awaiting_send(awaiting, Py_None, &result) == PYGEN_RETURN ? stop_with(result) : result;
}

static PyObject *awaiting_throw(Awaiting *awaiting, PyObject *const *args, Py_ssize_t nargs)
{
    Py_CLEAR(awaiting->waiter);
    return raise_given(args, nargs);
}

static PyObject *awaiting_close(Awaiting *awaiting, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(awaiting->waiter);
    Py_RETURN_NONE;
}

static int awaiting_traverse(Awaiting *awaiting, visitproc visit, void *arg)
{
    Py_VISIT(awaiting->waiter);
    Py_VISIT(Py_TYPE(awaiting));
    return 0;
}

static int awaiting_clear(Awaiting *awaiting)
{
    Py_CLEAR(awaiting->waiter);
    return 0;
}

static void awaiting_dealloc(Awaiting *awaiting)
{
    PyTypeObject *type = Py_TYPE(awaiting);
    PyObject_GC_UnTrack(awaiting);
    Py_CLEAR(awaiting->waiter);
    PyObject_GC_Del(awaiting);
    Py_DECREF(type);
}

static PyMethodDef awaiting_methods[] = {
    {"throw", (PyCFunction)(void (*)(void))awaiting_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)awaiting_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaiting_slots[] = {
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaiting_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaiting_next},
    {Py_tp_dealloc, awaiting_dealloc},
    {Py_tp_traverse, awaiting_traverse},
    {Py_tp_clear, awaiting_clear},
    {Py_tp_methods, awaiting_methods},
    {0, NULL},
};

PyType_Spec awaiting_spec = {
    .name = "pyglyn.node._hot.Awaiting",
    .basicsize = sizeof(Awaiting),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaiting_slots,
};

/* --- mailboxes ------------------------------------------------------------------------------------- */

/* Mailbox.put_encoded */
static PyObject *mailbox_put_encoded(PyObject *mailbox, PyObject *message)
{
    if (put_encoded(hot, mailbox, message) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *read_quickly(Hot *of_this, PyObject *message)
{
    State *state = of_this->etf;
    Reader reader;
    state->begin_reading(&reader, state, (const uint8_t *)PyBytes_AS_STRING(message), 0, PyBytes_GET_SIZE(message));
    PyObject *term = state->read_term(&reader);
    state->end_reading(&reader);
    if (term == NULL && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();  /* Python finds it again, and says what it is */
    }
    return term;
}

/* What a mailbox decodes with, of a message: Runtime._read_message, of what is not damaged, is done here. */
static PyObject *decode(PyObject *mailbox, PyObject *message)
{
    PyObject *function = Py_XNewRef(*field_at(mailbox, hot->mailbox_decode)), *term = NULL;
    if (function == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_decode");
        return NULL;
    }
    if (PyMethod_Check(function) && PyMethod_GET_FUNCTION(function) == hot->read_message && PyBytes_CheckExact(message)) {
        PyObject *limits = PyObject_GetAttr(PyMethod_GET_SELF(function), hot->names[LIMITS]);
        if (limits == hot->etf->default_limits) term = read_quickly(hot, message);
        Py_XDECREF(limits);
    }
    if (term == NULL && !PyErr_Occurred()) term = PyObject_CallOneArg(function, message);
    Py_DECREF(function);
    return term;
}

static long small_field(PyObject *object, Py_ssize_t at)
{
    PyObject *number = *field_at(object, at);
    return number == NULL || !PyLong_CheckExact(number) ? -1 : PyLong_AsLong(number);
}

/* Mailbox.next; a new reference */
static PyObject *take_next(PyObject *mailbox, PyObject *match)
{
    PyObject *fresh = *field_at(mailbox, hot->mailbox_fresh);
    long remaining = small_field(mailbox, hot->mailbox_remaining), streak = small_field(mailbox, hot->mailbox_streak);
    Py_ssize_t count = fresh == NULL ? -1 : PyObject_Size(fresh);
    if (count < 0 || remaining < 0 || streak < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a mailbox that is none");
        return NULL;
    }
    if (count == 0 || remaining > 0 || *field_at(mailbox, hot->mailbox_held) != Py_False || streak >= FAIRNESS - 1) {
        return Py_NewRef(hot->not_found);
    }
    PyObject *more = PyLong_FromLong(streak + 1);
    if (more == NULL) return NULL;
    set_field(mailbox, hot->mailbox_streak, more);
    Py_DECREF(more);
    PyObject *message = take_first(fresh);
    if (message == NULL) return NULL;
    if (match != hot->as_it_came) {
        if (PyBytes_CheckExact(message) || PyMemoryView_Check(message)) {
            Py_SETREF(message, decode(mailbox, message));
            if (message == NULL) {
                if (!PyErr_ExceptionMatches(hot->decode_error)) return NULL;
                PyErr_Clear();
                return Py_NewRef(hot->not_found);
            }
        }
        else if (Py_TYPE(message) == hot->plain) {
            PyObject *inside = *field_at(message, hot->plain_message);
            Py_SETREF(message, Py_NewRef(inside == NULL ? Py_None : inside));
        }
    }
    PyObject *found = PyTuple_Pack(2, Py_True, message);
    Py_DECREF(message);
    return found;
}

static PyObject *mailbox_next(PyObject *mailbox, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "next() takes what is to match");
        return NULL;
    }
    return take_next(mailbox, nargs == 1 ? args[0] : Py_None);
}

/* Mailbox.next_to_come, to be awaited once */
typedef struct {
    PyObject_HEAD
    PyObject *mailbox;          /* NULL at the end */
    bool waits;
} Coming;

static PyObject *mailbox_next_to_come(PyObject *mailbox, PyObject *Py_UNUSED(ignored))
{
    Coming *coming = PyObject_GC_New(Coming, hot->coming);
    if (coming == NULL) return NULL;
    coming->mailbox = Py_NewRef(mailbox);
    coming->waits = false;
    PyObject_GC_Track(coming);
    return (PyObject *)coming;
}

/* It waits no more. */
static void wait_no_more(Coming *coming)
{
    PyObject *mailbox = coming->mailbox;
    if (mailbox != NULL && coming->waits) {
        set_field(mailbox, hot->mailbox_waits, Py_False);
        set_field(mailbox, hot->mailbox_sleeps, Py_False);
    }
    coming->mailbox = NULL;
    coming->waits = false;
    Py_XDECREF(mailbox);
}

/* Begin to wait: what to wait for, a new reference; NULL without an exception where there is no need to, or one may not. */
static PyObject *begin_to_wait(Coming *coming)
{
    PyObject *mailbox = coming->mailbox, *fresh = *field_at(mailbox, hot->mailbox_fresh);
    Py_ssize_t here = fresh == NULL ? -1 : PyObject_Size(fresh);
    if (here != 0 || small_field(mailbox, hot->mailbox_remaining) != 0 ||
        *field_at(mailbox, hot->mailbox_held) != Py_False || *field_at(mailbox, hot->mailbox_waits) != Py_False ||
        *field_at(mailbox, hot->mailbox_failure) != Py_None) {
        return NULL;
    }
    PyObject *waiter = *field_at(mailbox, hot->mailbox_waiter);
    if (waiter == NULL || waiter == Py_None) {
        waiter = PyObject_CallNoArgs((PyObject *)hot->waiter);
        if (waiter == NULL) return NULL;
        set_field(mailbox, hot->mailbox_waiter, waiter);
        Py_DECREF(waiter);
    }
    Py_INCREF(waiter);
    if (Py_TYPE(waiter) != hot->waiter || make_anew(waiter) < 0) {
        if (call_method(waiter, hot->names[ANEW]) < 0) {
            Py_DECREF(waiter);
            return NULL;
        }
    }
    set_field(mailbox, hot->mailbox_streak, hot->etf->bytes_of[0]);
    set_field(mailbox, hot->mailbox_waits, Py_True);
    set_field(mailbox, hot->mailbox_sleeps, Py_True);
    coming->waits = true;
    return waiter;
}

static PySendResult coming_send(Coming *coming, PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = NULL;
    if (coming->mailbox == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse what was awaited already");
        return PYGEN_ERROR;
    }
    if (!coming->waits) {
        *result = begin_to_wait(coming);
        if (*result != NULL) return PYGEN_NEXT;
        wait_no_more(coming);
        if (PyErr_Occurred()) return PYGEN_ERROR;
        *result = Py_NewRef(hot->not_found);
        return PYGEN_RETURN;
    }
    PyObject *mailbox = Py_NewRef(coming->mailbox);
    wait_no_more(coming);
    *result = take_next(mailbox, Py_None);
    Py_DECREF(mailbox);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PyObject *coming_next(Coming *coming)
{
    PyObject *result;
    return coming_send(coming, Py_None, &result) == PYGEN_RETURN ? stop_with(result) : result;
}

static PyObject *coming_throw(Coming *coming, PyObject *const *args, Py_ssize_t nargs)
{
    wait_no_more(coming);
    return raise_given(args, nargs);
}

static PyObject *coming_close(Coming *coming, PyObject *Py_UNUSED(ignored))
{
    wait_no_more(coming);
    Py_RETURN_NONE;
}

static int coming_traverse(Coming *coming, visitproc visit, void *arg)
{
    Py_VISIT(coming->mailbox);
    Py_VISIT(Py_TYPE(coming));
    return 0;
}

static int coming_clear(Coming *coming)
{
    wait_no_more(coming);
    return 0;
}

static void coming_dealloc(Coming *coming)
{
    PyTypeObject *type = Py_TYPE(coming);
    PyObject_GC_UnTrack(coming);
    wait_no_more(coming);
    PyObject_GC_Del(coming);
    Py_DECREF(type);
}

static PyMethodDef coming_methods[] = {
    {"throw", (PyCFunction)(void (*)(void))coming_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)coming_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot coming_slots[] = {
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, coming_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, coming_next},
    {Py_tp_dealloc, coming_dealloc},
    {Py_tp_traverse, coming_traverse},
    {Py_tp_clear, coming_clear},
    {Py_tp_methods, coming_methods},
    {0, NULL},
};

PyType_Spec coming_spec = {
    .name = "pyglyn.node._hot.Coming",
    .basicsize = sizeof(Coming),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = coming_slots,
};

/* --- putting them into their classes --------------------------------------------------------------- */

static PyMethodDef methods[METHOD_COUNT] = {
    [BEGIN] = {"begin", turn_begin, METH_NOARGS, NULL},
    [END] = {"end", turn_end, METH_NOARGS, NULL},
    [AT_END] = {"at_end", turn_at_end, METH_O, NULL},
    [WAKE_METHOD] = {"wake", waiter_wake, METH_NOARGS, NULL},
    [ADD_DONE_CALLBACK] = {"add_done_callback", (PyCFunction)(void (*)(void))waiter_add_done_callback,
                           METH_FASTCALL | METH_KEYWORDS, NULL},
    [RESULT] = {"result", waiter_result, METH_NOARGS, NULL},
    [SET_RESULT] = {"set_result", waiter_set_result, METH_O, NULL},
    [INIT] = {"__init__", (PyCFunction)(void (*)(void))waiter_init, METH_FASTCALL, NULL},
    [AWAIT] = {"__await__", waiter_await, METH_NOARGS, NULL},
    [PUT_ENCODED] = {"put_encoded", mailbox_put_encoded, METH_O, NULL},
    [NEXT] = {"next", (PyCFunction)(void (*)(void))mailbox_next, METH_FASTCALL, NULL},
    [NEXT_TO_COME] = {"next_to_come", mailbox_next_to_come, METH_NOARGS, NULL},
    [SEND_FRAME] = {"send_frame", connection_send_frame, METH_O, NULL},
    [FLUSH] = {"_flush", connection_flush, METH_NOARGS, NULL},
    [SEND_FRAME_ON_LINK] = {"send_frame", link_send_frame, METH_O, NULL},
    [FLUSH_LINK] = {"flush", link_flush, METH_NOARGS, NULL},
    [GET_BUFFER] = {"get_buffer", connection_get_buffer, METH_O, NULL},
    [BUFFER_UPDATED] = {"buffer_updated", connection_buffer_updated, METH_O, NULL},
    [GET_BUFFER_OF_LINK] = {"get_buffer", link_get_buffer, METH_O, NULL},
    [BUFFER_OF_LINK_UPDATED] = {"buffer_updated", link_buffer_updated, METH_O, NULL},
};

static PyTypeObject *class_of(int method)
{
    return method < WAKE_METHOD ? hot->turn : method < PUT_ENCODED ? hot->waiter
        : method < SEND_FRAME ? hot->mailbox : method < SEND_FRAME_ON_LINK ? hot->connection
        : method < GET_BUFFER ? hot->link : method < GET_BUFFER_OF_LINK ? hot->connection : hot->link;
}

int remember_methods(Hot *of_this_interpreter)
{
    if (hot != NULL) {
        PyErr_SetString(PyExc_ImportError, "pyglyn.node._hot is for one interpreter");
        return -1;
    }
    hot = of_this_interpreter;
    for (int i = 0; i < METHOD_COUNT; i++) {
        PyObject *dict = class_of(i)->tp_dict;
        hot->of_python[i] = Py_XNewRef(PyDict_GetItemString(dict, methods[i].ml_name));
        hot->of_c[i] = PyDescr_NewMethod(class_of(i), &methods[i]);
        if (hot->of_python[i] == NULL || hot->of_c[i] == NULL) return -1;
    }
    return 0;
}

void forget_methods(Hot *of_this_interpreter)
{
    if (hot == of_this_interpreter) hot = NULL;
}

/* use(whether): have these classes use the methods in C, or those in Python. */
PyObject *use(PyObject *Py_UNUSED(module), PyObject *whether)
{
    int in_c = PyObject_IsTrue(whether);
    for (int i = 0; i < METHOD_COUNT && in_c >= 0; i++) {
        PyObject *method = in_c ? hot->of_c[i] : hot->of_python[i];
        if (PyObject_SetAttrString((PyObject *)class_of(i), methods[i].ml_name, method) < 0) in_c = -1;
    }
    if (in_c < 0) return NULL;
    Py_RETURN_NONE;
}
