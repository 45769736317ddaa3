/* What libFuzzer calls, or the `main` below, on the codec in C with sanitizers: see `building.py`.
 *
 * The first byte of an input chooses what is done with the rest, a term without its version byte: it is read
 * under some limits; what could be read is written, read again and normalised, which all have to give the same
 * bytes. It is cut into frames as well, with and without frames around it, which have to be the same bytes put
 * together again, and what calls bring is read of it. Values of some types are made of it, and written; decoders by
 * hand take it. It is read as JSON, and is the seed of JSON texts that are nearly right. Of a few inputs, `agree.check` compares all functions with those in Python, which takes a thousand
 * times as long: of those that libFuzzer makes, fewer.
 */

#include "codec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

PyMODINIT_FUNC PyInit__speedups(void);
PyMODINIT_FUNC PyInit__plans(void);
PyMODINIT_FUNC PyInit__decoders(void);
PyMODINIT_FUNC PyInit__reading(void);

static State *state;
static PyObject *module, *check, *values, *signals, *unread, *any_number;

#ifdef WITH_MAIN
enum { COMPARED_EACH = 64 };
#else
enum { COMPARED_EACH = 16384 };
#endif
enum { TIGHT = 1, AS_PACKETS = 2 };

static void give_up(const char *what)
{
    if (PyErr_Occurred()) {
        PyErr_Print();
    }
    fprintf(stderr, "codec: %s\n", what);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("PYGLYN_PURE", "1", 1);
    PyImport_AppendInittab("_speedups", PyInit__speedups);
    PyImport_AppendInittab("_plans", PyInit__plans);
    PyImport_AppendInittab("_decoders", PyInit__decoders);
    PyImport_AppendInittab("_reading", PyInit__reading);
    Py_InitializeEx(0);
    module = PyImport_ImportModule("_speedups");
    if (module == NULL) give_up("not imported");
    state = state_of(module);
    PyObject *agree = PyImport_ImportModule("tests.fuzz.agree");
    check = agree == NULL ? NULL : PyObject_GetAttrString(agree, "check");
    values = agree == NULL ? NULL : PyObject_GetAttrString(agree, "values_of");
    signals = agree == NULL ? NULL : PyObject_GetAttrString(agree, "SIGNALS");
    unread = agree == NULL ? NULL : PyObject_GetAttrString(agree, "UNREAD");
    any_number = PyLong_FromSsize_t(PY_SSIZE_T_MAX);
    if (check == NULL || values == NULL || signals == NULL || unread == NULL) give_up("tests.fuzz.agree not imported");
    return 0;
}

static PyObject *read_all(const uint8_t *data, Py_ssize_t size, bool tight)
{
    Reader reader;
    begin_reading(&reader, state, data, 0, size);
    if (tight) {
        reader.budget = 100;
        reader.max_depth = 5;
    }
    PyObject *term = read_term(&reader);
    if (term == NULL) {
        PyErr_Clear();
        PyObject *frames = frames_of(&reader);
        if (frames == NULL) give_up("no frames to go on with");
        Py_DECREF(frames);
    }
    end_reading(&reader);
    return term;
}

static PyObject *written(PyObject *term)
{
    Writer writer;
    begin_writing(&writer, state);
    if (write_term(&writer, term) < 0) give_up("what was read cannot be written");
    PyObject *data = take_written(&writer);
    end_writing(&writer);
    return data;
}

/* Whatever the input is, frames are cut off it, and put together again they are the same bytes. A signal is read, or
 * is a part of its frame: where there is one, nothing is put together. */
static void cut(PyObject *input, const char *prefix, Py_ssize_t prefix_size, PyObject *known, long least, bool read)
{
    PyObject *runs = PyList_New(0), *begins = PyBytes_FromStringAndSize(prefix, prefix_size);
    PyObject *at = PyLong_FromLong(0), *most = PyLong_FromLong(least), *head = NULL;
    PyObject *args[9] = {input, at, most, begins, known, runs, signals, any_number, unread};
    PyObject *end = cut_frames(module, args, read ? 9 : 6);
    if (end == NULL) give_up("what was received cannot be cut");
    PyObject *joined = PyBytes_FromStringAndSize("", 0);
    bool whole = true;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(runs) && whole; i++) {
        PyObject *run = PyList_GET_ITEM(runs, i);
        whole = PyList_CheckExact(PyTuple_GET_ITEM(run, 1));
        if (!whole) break;
        head = PyTuple_GET_ITEM(run, 0);
        PyObject *frames = join_frames(module, (PyObject *[]){head, PyTuple_GET_ITEM(run, 1)}, 2);
        if (frames == NULL) give_up("frames cannot be joined");
        PyBytes_ConcatAndDel(&joined, frames);
    }
    if (!read && !whole) give_up("a signal that nobody asked for");
    if (joined == NULL || (whole && PyBytes_GET_SIZE(joined) != PyLong_AsLong(end))) give_up("not as many bytes as were cut");
    if (memcmp(PyBytes_AS_STRING(joined), PyBytes_AS_STRING(input), (size_t)PyBytes_GET_SIZE(joined)) != 0) {
        give_up("other bytes than were cut");
    }
    Py_DECREF(joined);
    Py_DECREF(end);
    Py_DECREF(runs);
    Py_DECREF(begins);
    Py_DECREF(at);
    Py_DECREF(most);
}

/* The input itself, and two frames around it with the input behind them: with nothing known, and with all that it
 * begins with; as the link has them, and, with a packet's header in front, as a connection has them. */
static void cut_all(const uint8_t *data, Py_ssize_t size, const char *prefix, Py_ssize_t prefix_size)
{
    Py_ssize_t whole = prefix_size + size;
    const uint8_t length[4] = {(uint8_t)(whole >> 24), (uint8_t)(whole >> 16), (uint8_t)(whole >> 8), (uint8_t)whole};
    PyObject *input = PyBytes_FromStringAndSize((const char *)data, size), *known = PyDict_New();
    PyObject *framed = PyBytes_FromStringAndSize(NULL, 2 * (4 + whole) + size);
    if (input == NULL || known == NULL || framed == NULL) give_up("no memory");
    char *to = PyBytes_AS_STRING(framed), *first = to + 4;
    for (int i = 0; i < 3; i++) {
        if (i < 2) {
            memcpy(to, length, 4);
            memcpy(to + 4, prefix, (size_t)prefix_size);
            to += 4 + prefix_size;
        }
        memcpy(to, data, (size_t)size);
        to += size;
    }
    cut(input, prefix, prefix_size, known, 1 << 16, true);
    cut(framed, prefix, prefix_size, known, 1 << 16, true);
    for (Py_ssize_t head = 1; head <= Py_MIN(whole, 100); head++) {
        PyObject *key = PyBytes_FromStringAndSize(first, head);
        if (key == NULL || PyDict_SetItem(known, key, key) < 0) give_up("no memory");
        Py_DECREF(key);
    }
    cut(input, prefix, prefix_size, known, 1 << 16, false);
    cut(framed, prefix, prefix_size, known, 1 << 16, false);
    cut(framed, prefix, prefix_size, known, 1 << 16, true);
    cut(framed, prefix, prefix_size, known, (long)size, true);
    Py_DECREF(framed);
    Py_DECREF(input);
    Py_DECREF(known);
}

static void expect_bytes(PyObject *term, PyObject *data, const char *what)
{
    PyObject *again = written(term);
    if (PyObject_RichCompareBool(data, again, Py_EQ) != 1) give_up(what);
    Py_DECREF(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned long count = 0;
    if (size < 1 || size > 1 << 20) return 0;
    int mode = *data++;
    size--;
    if (mode & AS_PACKETS) {
        cut_all(data, (Py_ssize_t)size, "\x83" "D\0", 3);
    }
    else {
        cut_all(data, (Py_ssize_t)size, "", 0);
    }
    PyObject *tried = PyObject_CallFunction(values, "y#i", (const char *)data, (Py_ssize_t)size, mode & TIGHT);
    if (tried == NULL) give_up("no values can be made of it");
    Py_DECREF(tried);
    PyObject *term = read_all(data, (Py_ssize_t)size, mode & TIGHT);
    if (term != NULL) {
        PyObject *bytes = written(term);
        PyObject *again = read_all((const uint8_t *)PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), false);
        if (again == NULL) give_up("what was written cannot be read");
        expect_bytes(again, bytes, "what was written is read as something else");
        Py_DECREF(again);
        PyObject *normal = normal_of(state, term);
        if (normal == NULL) give_up("what was read cannot be normalised");
        expect_bytes(normal, bytes, "what was read is normalised to something else");
        Py_DECREF(normal);
        Py_DECREF(bytes);
        Py_DECREF(term);
    }
    if (count++ % COMPARED_EACH == 0) {
        PyObject *done = PyObject_CallFunction(check, "y#", (const char *)data, (Py_ssize_t)size);
        if (done == NULL) give_up("not the same as in Python");
        Py_DECREF(done);
    }
    return 0;
}

#ifdef WITH_MAIN
/* Run every input of a file: each has its size, four bytes with the highest first, in front. */
int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uint8_t head[4];
    long count = 0;
    if (file == NULL) give_up("which file?");
    LLVMFuzzerInitialize(&argc, &argv);
    while (fread(head, 1, 4, file) == 4) {
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        uint8_t *data = malloc(size + 1);  /* of its very size for the sanitizer, or it would not see what is read beyond */
        if (data == NULL || fread(data, 1, size, file) != size) give_up("a file cut off");
        uint8_t *exact = realloc(data, size > 0 ? size : 1);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        count++;
    }
    fclose(file);
    printf("%ld inputs\n", count);
    return 0;
}
#endif
