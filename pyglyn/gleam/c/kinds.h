/* What the two modules in C of this package have in common. Layer: gleam, pure.
 *
 * Each has kinds (of plans, of decoders), listed once by a macro `KINDS(X)`: constants in C, numbers of the same names
 * in Python. Each gives MISFIT for what does not fit, and looks into slots of classes.
 */

#ifndef PYGLYN_KINDS_H
#define PYGLYN_KINDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#ifndef Py_T_OBJECT_EX
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

#define AS_NAME(name) #name,

/* Where the slot of an attribute is, -1 if it is in none, -2 with an exception. */
static inline Py_ssize_t slot_of(PyObject *class, PyObject *name)
{
    PyObject *member = PyObject_GetAttr(class, name);
    Py_ssize_t at = -1;
    if (member == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -2;
        PyErr_Clear();
        return -1;
    }
    if (Py_IS_TYPE(member, &PyMemberDescr_Type)) {
        const PyMemberDef *found = ((PyMemberDescrObject *)member)->d_member;
        at = found->type == Py_T_OBJECT_EX ? found->offset : -1;
    }
    Py_DECREF(member);  /* the class has it as well */
    return at;
}

/* Give the module the numbers of its kinds, and MISFIT, a new reference. */
static inline PyObject *add_kinds(PyObject *module, const char *const *names, int count)
{
    PyObject *misfit = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    int failed = misfit == NULL ? -1 : PyModule_AddObjectRef(module, "MISFIT", misfit);
    for (int i = 0; failed == 0 && i < count; i++) {
        failed = PyModule_AddIntConstant(module, names[i], i);
    }
    if (failed < 0) {
        Py_CLEAR(misfit);
    }
    return misfit;
}

/* Forget what did not fit, whatever it was, and give MISFIT; NULL for something like KeyboardInterrupt. */
static inline PyObject *as_misfit(PyObject *misfit)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
        PyErr_Clear();
    }
    return Py_NewRef(misfit);
}

#if PY_VERSION_HEX >= 0x030C0000
#define SLOT_OF_INTERPRETERS {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#define SLOT_OF_INTERPRETERS
#endif
#if PY_VERSION_HEX >= 0x030D0000
/* what is known is not locked: a free-threaded build takes the GIL for us */
#define SLOT_OF_GIL {Py_mod_gil, Py_MOD_GIL_USED},
#else
#define SLOT_OF_GIL
#endif
#define MODULE_SLOTS(exec) {{Py_mod_exec, exec}, SLOT_OF_INTERPRETERS SLOT_OF_GIL {0, NULL}}

#endif
