/* Python with `_speedups` and `_hot` built in, so that both have the sanitizers this was compiled with: see `building.py`.
 *
 * With libFuzzer an input is where `tests.fuzz.structured.once` has its choices from, for the machine that
 * PYGLYN_FUZZ names; else this is an interpreter as any other, for `-m tests.fuzz.structured`. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>

PyMODINIT_FUNC PyInit__speedups(void);
PyMODINIT_FUNC PyInit__hot(void);

static void add_modules(void)
{
    PyImport_AppendInittab("pyglyn.etf._speedups", PyInit__speedups);
    PyImport_AppendInittab("pyglyn.node._hot", PyInit__hot);
}

#ifdef WITH_MAIN
int main(int argc, char **argv)
{
    add_modules();
    return Py_BytesMain(argc, argv);
}
#else
static PyObject *once, *machine;

static void give_up(void)
{
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const char *name = getenv("PYGLYN_FUZZ");
    add_modules();
    Py_InitializeEx(0);
    PyObject *module = PyImport_ImportModule("tests.fuzz.structured");
    once = module == NULL ? NULL : PyObject_GetAttrString(module, "once");
    machine = PyUnicode_FromString(name == NULL ? "node" : name);
    if (once == NULL || machine == NULL) give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *done = PyObject_CallFunction(once, "Oy#", machine, (const char *)data, (Py_ssize_t)size);
    if (done == NULL) give_up();
    Py_DECREF(done);
    return 0;
}
#endif
