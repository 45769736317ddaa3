#include "hot.h"

/* --- waiting --------------------------------------------------------------------------------------- */

int append_to(Hot *hot, PyObject *deque, PyObject *item)
{
    PyObject *args[] = {deque, item};
    PyObject *none = PyObject_Vectorcall(hot->append, args, 2, NULL);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

int call_method(PyObject *object, PyObject *name)
{
    PyObject *result = PyObject_CallMethodNoArgs(object, name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int wake(Hot *hot, PyObject *waiter)
{
    if (Py_TYPE(waiter) != hot->waiter) return call_method(waiter, hot->names[WAKE]);
    if (*field_at(waiter, hot->waiter_result) == hot->unsettled) return settle(hot, waiter, Py_None);
    PyObject *callback = *field_at(waiter, hot->waiter_callback), *turn = *field_at(waiter, hot->waiter_turn);
    if (callback == NULL || callback == Py_None || turn == NULL || Py_TYPE(turn) != hot->turn ||
        *field_at(turn, hot->turn_open) == Py_True) {
        return 0;
    }
    Py_INCREF(turn);
    int failed = call_method(turn, hot->names[SOON]);  /* there may have been no memory for this */
    Py_DECREF(turn);
    return failed;
}

int settle(Hot *hot, PyObject *waiter, PyObject *result)
{
    PyObject *callback = *field_at(waiter, hot->waiter_callback), *turn = *field_at(waiter, hot->waiter_turn);
    if (callback == NULL || callback == Py_None) {
        set_field(waiter, hot->waiter_result, result);
        return 0;
    }
    PyObject *settled = turn == NULL || Py_TYPE(turn) != hot->turn ? NULL : *field_at(turn, hot->turn_settled);
    if (settled == NULL) {
        PyErr_SetString(PyExc_TypeError, "a waiter without its turn");
        return -1;
    }
    Py_INCREF(turn);
    int failed = append_to(hot, settled, waiter);  /* before it is settled: there may be no memory for that */
    if (!failed) set_field(waiter, hot->waiter_result, result);
    if (!failed && *field_at(turn, hot->turn_open) != Py_True) {
        failed = call_method(turn, hot->names[SOON]);
    }
    Py_DECREF(turn);
    return failed;
}

int put_encoded(Hot *hot, PyObject *mailbox, PyObject *message)
{
    PyObject *fresh = *field_at(mailbox, hot->mailbox_fresh);
    if (fresh == hot->nothing) {
        fresh = PyObject_CallNoArgs(hot->deque);
        if (fresh == NULL) return -1;
        set_field(mailbox, hot->mailbox_fresh, fresh);
        Py_DECREF(fresh);
    }
    if (fresh == NULL) {
        PyErr_SetString(PyExc_AttributeError, "fresh");
        return -1;
    }
    if (append_to(hot, fresh, message) < 0) return -1;
    if (*field_at(mailbox, hot->mailbox_sleeps) != Py_True) return 0;
    PyObject *waiter = *field_at(mailbox, hot->mailbox_waiter);
    if (waiter == NULL) return 0;
    Py_INCREF(waiter);
    int failed = wake(hot, waiter);
    if (!failed) set_field(mailbox, hot->mailbox_sleeps, Py_False);
    Py_DECREF(waiter);
    return failed;
}

/* --- the module ------------------------------------------------------------------------------------ */

static const struct {
    const char *module, *name;
    size_t field;
} imports[] = {
    {"pyglyn.loop_turn", "_PENDING", offsetof(Hot, unsettled)},
    {"pyglyn.loop_turn", "Turn", offsetof(Hot, turn)},
    {"pyglyn.loop_turn", "Waiter", offsetof(Hot, waiter)},
    {"pyglyn.loop_turn", "_running", offsetof(Hot, running)},
    {"pyglyn.node.mailbox", "as_it_came", offsetof(Hot, as_it_came)},
    {"pyglyn.node.mailbox", "Plain", offsetof(Hot, plain)},
    {"pyglyn.errors", "DecodeError", offsetof(Hot, decode_error)},
    {"pyglyn.node.mailbox", "_NOTHING", offsetof(Hot, nothing)},
    {"pyglyn.node.mailbox", "Mailbox", offsetof(Hot, mailbox)},
    {"pyglyn.node.signals", "Signals", offsetof(Hot, signals)},
    {"pyglyn.node.pending", "Pending", offsetof(Hot, pending)},
    {"pyglyn.dist.control", "Send", offsetof(Hot, send)},
    {"pyglyn.dist.control", "RegSend", offsetof(Hot, reg_send)},
    {"pyglyn.dist.control", "MonitorP", offsetof(Hot, monitor)},
    {"pyglyn.dist.control", "DemonitorP", offsetof(Hot, demonitor)},
    {"pyglyn.net.connection", "Connection", offsetof(Hot, connection)},
    {"pyglyn.dist.channel", "Channel", offsetof(Hot, channel)},
    {"pyglyn.dist.outgoing", "OutgoingQueue", offsetof(Hot, queue)},
    {"pyglyn.dist.ticks", "Ticker", offsetof(Hot, ticker)},
    {"pyglyn.node.link", "LinkProtocol", offsetof(Hot, link)},
    {"pyglyn.node.link", "FrameReader", offsetof(Hot, reader)},
    {"pyglyn.etf", "pack_frame", offsetof(Hot, pack_frame)},
    {"collections", "deque", offsetof(Hot, deque)},
};

static const struct {
    size_t class;
    const char *name;
    size_t at;
} fields[] = {
    {offsetof(Hot, turn), "_settled", offsetof(Hot, turn_settled)},
    {offsetof(Hot, turn), "_open", offsetof(Hot, turn_open)},
    {offsetof(Hot, turn), "_last", offsetof(Hot, turn_last)},
    {offsetof(Hot, turn), "loop", offsetof(Hot, turn_loop)},
    {offsetof(Hot, waiter), "_result", offsetof(Hot, waiter_result)},
    {offsetof(Hot, waiter), "_error", offsetof(Hot, waiter_error)},
    {offsetof(Hot, waiter), "_context", offsetof(Hot, waiter_context)},
    {offsetof(Hot, waiter), "_more", offsetof(Hot, waiter_more)},
    {offsetof(Hot, waiter), "_asyncio_future_blocking", offsetof(Hot, waiter_blocking)},
    {offsetof(Hot, waiter), "_callback", offsetof(Hot, waiter_callback)},
    {offsetof(Hot, waiter), "turn", offsetof(Hot, waiter_turn)},
    {offsetof(Hot, mailbox), "fresh", offsetof(Hot, mailbox_fresh)},
    {offsetof(Hot, mailbox), "_sleeps", offsetof(Hot, mailbox_sleeps)},
    {offsetof(Hot, mailbox), "_waiter", offsetof(Hot, mailbox_waiter)},
    {offsetof(Hot, mailbox), "_waits", offsetof(Hot, mailbox_waits)},
    {offsetof(Hot, mailbox), "_remaining", offsetof(Hot, mailbox_remaining)},
    {offsetof(Hot, mailbox), "_held", offsetof(Hot, mailbox_held)},
    {offsetof(Hot, mailbox), "_streak", offsetof(Hot, mailbox_streak)},
    {offsetof(Hot, mailbox), "_failure", offsetof(Hot, mailbox_failure)},
    {offsetof(Hot, mailbox), "_decode", offsetof(Hot, mailbox_decode)},
    {offsetof(Hot, plain), "message", offsetof(Hot, plain_message)},
    {offsetof(Hot, connection), "_channel", offsetof(Hot, connection_channel)},
    {offsetof(Hot, connection), "busy", offsetof(Hot, connection_busy)},
    {offsetof(Hot, connection), "_busy_limit", offsetof(Hot, connection_busy_limit)},
    {offsetof(Hot, connection), "_sent", offsetof(Hot, connection_sent)},
    {offsetof(Hot, connection), "_sent_bytes", offsetof(Hot, connection_sent_bytes)},
    {offsetof(Hot, connection), "_flush_due", offsetof(Hot, connection_flush_due)},
    {offsetof(Hot, connection), "_writable", offsetof(Hot, connection_writable)},
    {offsetof(Hot, connection), "_turn", offsetof(Hot, connection_turn)},
    {offsetof(Hot, connection), "_closed", offsetof(Hot, connection_closed)},
    {offsetof(Hot, connection), "_transport", offsetof(Hot, connection_transport)},
    {offsetof(Hot, connection), "_write_buffer", offsetof(Hot, connection_write_buffer)},
    {offsetof(Hot, connection), "_received_bytes", offsetof(Hot, connection_received_bytes)},
    {offsetof(Hot, connection), "_inlet", offsetof(Hot, connection_inlet)},
    {offsetof(Hot, connection), "_in_order", offsetof(Hot, connection_in_order)},
    {offsetof(Hot, connection), "_buffer", offsetof(Hot, connection_buffer)},
    {offsetof(Hot, channel), "closed", offsetof(Hot, channel_closed)},
    {offsetof(Hot, channel), "queue", offsetof(Hot, channel_queue)},
    {offsetof(Hot, channel), "_ticker", offsetof(Hot, channel_ticker)},
    {offsetof(Hot, channel), "packets", offsetof(Hot, channel_packets)},
    {offsetof(Hot, queue), "size", offsetof(Hot, queue_size)},
    {offsetof(Hot, queue), "_ready", offsetof(Hot, queue_ready)},
    {offsetof(Hot, queue), "_streams", offsetof(Hot, queue_streams)},
    {offsetof(Hot, ticker), "sent", offsetof(Hot, ticker_sent)},
    {offsetof(Hot, ticker), "received", offsetof(Hot, ticker_received)},
    {offsetof(Hot, link), "transport", offsetof(Hot, link_transport)},
    {offsetof(Hot, link), "busy", offsetof(Hot, link_busy)},
    {offsetof(Hot, link), "_out", offsetof(Hot, link_out)},
    {offsetof(Hot, link), "_out_size", offsetof(Hot, link_out_size)},
    {offsetof(Hot, link), "_high_water", offsetof(Hot, link_high_water)},
    {offsetof(Hot, link), "_flush_due", offsetof(Hot, link_flush_due)},
    {offsetof(Hot, link), "_turn", offsetof(Hot, link_turn)},
    {offsetof(Hot, link), "_writable", offsetof(Hot, link_writable)},
    {offsetof(Hot, link), "_inlet", offsetof(Hot, link_inlet)},
    {offsetof(Hot, link), "_reader", offsetof(Hot, link_reader)},
    {offsetof(Hot, link), "_buffer", offsetof(Hot, link_buffer)},
    {offsetof(Hot, link), "_into_frame", offsetof(Hot, link_into_frame)},
    {offsetof(Hot, reader), "_rest", offsetof(Hot, reader_rest)},
    {offsetof(Hot, reader), "body", offsetof(Hot, reader_body)},
    {offsetof(Hot, signals), "watchers_at", offsetof(Hot, signals_watchers)},
    {offsetof(Hot, pending), "futures", offsetof(Hot, pending_futures)},
    {offsetof(Hot, send), "to", offsetof(Hot, send_to)},
    {offsetof(Hot, reg_send), "name", offsetof(Hot, reg_send_name)},
};

static const char *const names[NAME_COUNT] = {
    "handling", "source", "signals", "pending", "_mailbox", "told_source", "deaf", "answers_system_messages",
    "_soon", "wake", "on_monitor", "_receive_message", "_say", "go_on", "anew", "limits",
    "_flush", "at_end", "_be_busy", "write", "appendleft", "clear", "send_frame", "flush", "is_closing", "protocol",
    "boundary", "watchers", "outgoing", "_receive_rest", "_say_not_handled",
};

static inline PyObject **object_of(Hot *hot, size_t field)
{
    return (PyObject **)((char *)hot + field);
}

static int find_field(Hot *hot, size_t index)
{
    PyObject *class = *object_of(hot, fields[index].class);
    PyObject *member = PyObject_GetAttrString(class, fields[index].name);
    if (member == NULL) return -1;
    const PyMemberDef *definition =
        Py_IS_TYPE(member, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)member)->d_member : NULL;
    Py_DECREF(member);  /* the class has it as well */
    if (definition == NULL || definition->type != Py_T_OBJECT_EX) {
        PyErr_Format(PyExc_ImportError, "%s is not in a slot", fields[index].name);
        return -1;
    }
    *(Py_ssize_t *)((char *)hot + fields[index].at) = definition->offset;
    return 0;
}

static int find_codec(Hot *hot)
{
    hot->codec = PyImport_ImportModule("pyglyn.etf._speedups");
    PyObject *capsule = hot->codec == NULL ? NULL : PyObject_GetAttrString(hot->codec, STATE_ATTRIBUTE);
    hot->etf = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, STATE_CAPSULE);
    Py_XDECREF(capsule);  /* the module has it as well */
    if (hot->etf == NULL) return -1;
    if (hot->etf->layout == sizeof(State)) return 0;
    PyErr_SetString(PyExc_ImportError, "pyglyn.etf._speedups was built from other sources");
    return -1;
}

static int module_exec(PyObject *module)
{
    Hot *hot = PyModule_GetState(module);
    if (find_codec(hot) < 0) return -1;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        PyObject *from = PyImport_ImportModule(imports[i].module);
        if (from == NULL) return -1;
        *object_of(hot, imports[i].field) = PyObject_GetAttrString(from, imports[i].name);
        Py_DECREF(from);
        if (*object_of(hot, imports[i].field) == NULL) return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(fields); i++) {
        if (find_field(hot, i) < 0) return -1;
    }
    for (size_t i = 0; i < NAME_COUNT; i++) {
        hot->names[i] = PyUnicode_InternFromString(names[i]);
        if (hot->names[i] == NULL) return -1;
    }
    hot->append = PyObject_GetAttrString(hot->deque, "append");
    hot->popleft = PyObject_GetAttrString(hot->deque, "popleft");
    hot->not_found = PyTuple_Pack(2, Py_False, Py_None);
    hot->inlet = (PyTypeObject *)PyType_FromModuleAndSpec(module, &inlet_spec, NULL);
    hot->coming = (PyTypeObject *)PyType_FromModuleAndSpec(module, &coming_spec, NULL);
    hot->awaiting = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaiting_spec, NULL);
    hot->way = (PyTypeObject *)PyType_FromModuleAndSpec(module, &way_spec, NULL);
    if (hot->awaiting == NULL || hot->way == NULL || PyModule_AddObjectRef(module, "Way", (PyObject *)hot->way) < 0) {
        return -1;
    }
    if (hot->append == NULL || hot->popleft == NULL || hot->not_found == NULL || hot->inlet == NULL ||
        hot->coming == NULL || remember_methods(hot) < 0) {
        return -1;
    }
    if (PyModule_AddObjectRef(module, "Inlet", (PyObject *)hot->inlet) < 0) return -1;
    Py_INCREF(module);  /* for good: what outlives all modules, at the very end, has these methods still */
    return 0;
}

/* of_runtime(class): its `_read_message` is known by that. */
static PyObject *of_runtime(PyObject *module, PyObject *class)
{
    Hot *hot = PyModule_GetState(module);
    Py_XSETREF(hot->read_message, PyObject_GetAttrString(class, "_read_message"));
    if (hot->read_message == NULL) return NULL;
    Py_RETURN_NONE;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Hot *hot = PyModule_GetState(module);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_VISIT(*object_of(hot, imports[i].field));
    }
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        Py_VISIT(hot->of_python[i]);
        Py_VISIT(hot->of_c[i]);
    }
    Py_VISIT(hot->codec);
    Py_VISIT(hot->read_message);
    Py_VISIT(hot->append);
    Py_VISIT(hot->popleft);
    Py_VISIT(hot->not_found);
    Py_VISIT(hot->inlet);
    Py_VISIT(hot->coming);
    Py_VISIT(hot->awaiting);
    Py_VISIT(hot->way);
    return 0;
}

static int module_clear(PyObject *module)
{
    Hot *hot = PyModule_GetState(module);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(imports); i++) {
        Py_CLEAR(*object_of(hot, imports[i].field));
    }
    for (size_t i = 0; i < NAME_COUNT; i++) {
        Py_CLEAR(hot->names[i]);
    }
    forget_methods(hot);
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        Py_CLEAR(hot->of_python[i]);
        Py_CLEAR(hot->of_c[i]);
    }
    Py_CLEAR(hot->codec);
    Py_CLEAR(hot->read_message);
    Py_CLEAR(hot->append);
    Py_CLEAR(hot->popleft);
    Py_CLEAR(hot->not_found);
    Py_CLEAR(hot->inlet);
    Py_CLEAR(hot->coming);
    Py_CLEAR(hot->awaiting);
    Py_CLEAR(hot->way);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyMethodDef functions[] = {
    {"use", use, METH_O, "use(whether, /)\n--\n\nHave turns, waiters and mailboxes use the methods in C, or those in Python."},
    {"of_runtime", of_runtime, METH_O, "of_runtime(class, /)\n--\n\nSay which class runtimes are of."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.node._hot",
    .m_doc = "The way of most messages in C; see c/hot.h.",
    .m_size = sizeof(Hot),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    return PyModuleDef_Init(&definition);
}
