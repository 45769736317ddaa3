/* JSON text to values of derived types, and pages of such texts to events, in C. Layer: eventsourcing, stores, pure.
 *
 * A reader does what the quick function of quick.py for the same type does with the value that json.loads gives, without
 * that value. It is a tree of nodes, or a graph for a recursive type, made by plans.py. Given a text it gives what the
 * quick function would; or MISFIT, whatever the reason, and then that function is called, and what it refuses is read by
 * the functions that say what is wrong. So nothing has to be complete here: what is rare in stored JSON (a tag that is not
 * the first key, \u escapes, long integers) is a misfit. What is
 * not here (sets, enums, times, types of the application's own) is a node that has the value read by the scanner of the
 * standard library, and calls a function in Python.
 *
 * An instance of a class whose `__init__` does nothing but assign to slots is made without it.
 *
 * Threads: under the GIL. A node does not change once it is made.
 */

#include "../../../../gleam/c/kinds.h"
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* What a node does, and what it needs for it. */
#define KINDS(X) \
    X(UNMADE)       /* nothing yet */ \
    X(TEXT) \
    X(INTEGER) \
    X(NUMBER)       /* a float; an integer that one holds exactly */ \
    X(TRUTH) \
    X(OPTION)       /* nodes: the inner */ \
    X(ARRAY)        /* nodes: the element */ \
    X(RECORD)       /* first: the class; nodes, keys (JSON) and names (attributes): the fields; assigns, exact */ \
    X(TAGGED)       /* first: the tag's key; nodes and keys: the class of each tag */ \
    X(CALL)         /* first: the scanner; second: the function that takes what it gives */

#define AS_ENUM(name) name,
typedef enum { KINDS(AS_ENUM) KIND_COUNT } Kind;

enum { FEW_FIELDS = 16, FEW_CHARACTERS = 256, DIGITS = 18, DIGITS_OF_A_FLOAT = 15 };

/* Characters of a text in UTF-8, not its own. */
typedef struct {
    const char *start;
    Py_ssize_t size;
} Piece;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Kind kind;
    bool assigns, exact;
    PyObject *first, *second;
    PyObject *nodes, *keys, *names;     /* tuples; of as many, but for options and arrays */
    PyObject *keywords;                 /* a tuple of str: the last arguments of the class, by keyword */
    Piece *pieces;                      /* of the keys; one more for the tag's key */
    Py_ssize_t *at;                     /* where the slot of each attribute is, if nothing has to be called */
    Py_ssize_t *order;                  /* which field is which argument, otherwise */
} Node;

typedef struct {
    PyTypeObject *node_type;
    PyObject *misfit;
} State;

/* A text that is being read. */
typedef struct {
    PyObject *text;
    const char *at, *end;               /* there is a NUL at the end */
    const char *counted;                /* to where characters were counted, for the scanner */
    Py_ssize_t place;                   /* and how many there are */
} Reader;

static struct PyModuleDef definition;

static PyObject *read_node(Reader *reader, Node *node);

static inline State *state_of(PyObject *node)
{
    return PyModule_GetState(PyType_GetModule(Py_TYPE(node)));
}

static inline Node *node_of(Node *node, Py_ssize_t i)
{
    return (Node *)PyTuple_GET_ITEM(node->nodes, i);
}

/* --- the text -------------------------------------------------------------------------------------- */

static inline void skip_blanks(Reader *reader)
{
    while (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r') {
        reader->at++;
    }
}

static inline bool take(Reader *reader, char expected)
{
    if (*reader->at != expected) return false;
    reader->at++;
    return true;
}

static inline bool take_word(Reader *reader, const char *word, Py_ssize_t size)
{
    if (reader->end - reader->at < size || memcmp(reader->at, word, (size_t)size) != 0) return false;
    reader->at += size;
    return true;
}

/* Go to what ends a piece of a string: a quote, a backslash, or what no string has. */
static inline void go_to_end(Reader *reader)
{
    while ((unsigned char)*reader->at >= ' ' && *reader->at != '"' && *reader->at != '\\') {
        reader->at++;
    }
}

/* Take a string without escapes. */
static inline bool take_plain(Reader *reader, Piece *piece)
{
    if (!take(reader, '"')) return false;
    piece->start = reader->at;
    go_to_end(reader);
    piece->size = reader->at - piece->start;
    return take(reader, '"');
}

/* Go on with a string from its first backslash on; its characters take no more room than they do here. */
static PyObject *escaped_text(Reader *reader, const char *start)
{
    char few[FEW_CHARACTERS], *made = few, *to;
    PyObject *text = NULL;
    const char *begin = start, *close = reader->at;
    while (*close != '"') {
        if ((unsigned char)*close < ' ') return NULL;
        close += *close == '\\' ? 2 : 1;
        if (close >= reader->end) return NULL;
    }
    if (close - begin > FEW_CHARACTERS) {
        made = PyMem_Malloc((size_t)(close - begin));
        if (made == NULL) return PyErr_NoMemory();
    }
    to = made;
    while (true) {
        memcpy(to, start, (size_t)(reader->at - start));
        to += reader->at - start;
        if (*reader->at != '\\') break;
        static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
        char escape = reader->at[1];
        const char *found = escape == '\0' ? NULL : strchr(escapes, escape);
        if (found == NULL) goto done;
        *to++ = meant[found - escapes];
        reader->at += 2;
        start = reader->at;
        go_to_end(reader);
    }
    if (take(reader, '"')) {
        text = PyUnicode_DecodeUTF8(made, to - made, NULL);
    }
done:
    if (made != few) {
        PyMem_Free(made);
    }
    return text;
}

static PyObject *read_text(Reader *reader)
{
    if (!take(reader, '"')) return NULL;
    const char *start = reader->at;
    go_to_end(reader);
    if (*reader->at == '\\') return escaped_text(reader, start);
    Py_ssize_t size = reader->at - start;
    return take(reader, '"') ? PyUnicode_DecodeUTF8(start, size, NULL) : NULL;
}

static inline bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

/* Take the digits of an integer with its sign, and say how many there are; 0 if there is none. */
static int take_integer(Reader *reader, long long *number)
{
    bool negative = take(reader, '-');
    const char *start = reader->at;
    long long found = 0;
    if (*start == '0' && is_digit(start[1])) return 0;
    while (is_digit(*reader->at) && reader->at - start < DIGITS) {
        found = found * 10 + (*reader->at++ - '0');
    }
    if (is_digit(*reader->at)) return 0;
    *number = negative ? -found : found;
    return (int)(reader->at - start);
}

static bool skip_digits(Reader *reader)
{
    if (!is_digit(*reader->at)) return false;
    while (is_digit(*reader->at)) {
        reader->at++;
    }
    return true;
}

static inline bool is_float(const Reader *reader)
{
    return *reader->at == '.' || *reader->at == 'e' || *reader->at == 'E';
}

static PyObject *read_integer(Reader *reader)
{
    long long number;
    return take_integer(reader, &number) > 0 && !is_float(reader) ? PyLong_FromLongLong(number) : NULL;
}

static PyObject *read_float(Reader *reader)
{
    const char *start = reader->at;
    char *end;
    long long number;
    int digits = take_integer(reader, &number);
    if (digits == 0) return NULL;
    if (!is_float(reader)) return digits <= DIGITS_OF_A_FLOAT ? PyFloat_FromDouble((double)number) : NULL;
    if (take(reader, '.') && !skip_digits(reader)) return NULL;
    if (*reader->at == 'e' || *reader->at == 'E') {
        reader->at++;
        if (*reader->at == '+' || *reader->at == '-') {
            reader->at++;
        }
        if (!skip_digits(reader)) return NULL;
    }
    double value = PyOS_string_to_double(start, &end, NULL);
    return end == reader->at && isfinite(value) ? PyFloat_FromDouble(value) : NULL;
}

static PyObject *read_truth(Reader *reader)
{
    if (take_word(reader, "true", 4)) return Py_NewRef(Py_True);
    return take_word(reader, "false", 5) ? Py_NewRef(Py_False) : NULL;
}

/* Count the characters to where the text is read, or, if `characters` are given, go so many on. */
static void count_to(Reader *reader, Py_ssize_t characters)
{
    bool ascii = PyUnicode_IS_ASCII(reader->text);
    if (ascii) {
        reader->at += characters;
        reader->place += reader->at - reader->counted;
        reader->counted = reader->at;
        return;
    }
    for (const char *end = reader->at; reader->counted < end; reader->counted++) {
        reader->place += (*reader->counted & 0xC0) != 0x80;
    }
    while (characters > 0 && reader->counted < reader->end) {
        reader->place++;
        characters--;
        do {
            reader->counted++;
        } while ((*reader->counted & 0xC0) == 0x80);
    }
    reader->at = reader->counted;
}

/* Have the scanner of the standard library read a value: a new reference, or NULL. */
static PyObject *scanned(Reader *reader, PyObject *scanner)
{
    count_to(reader, 0);
    PyObject *place = PyLong_FromSsize_t(reader->place);
    PyObject *args[] = {reader->text, place};
    PyObject *pair = place == NULL ? NULL : PyObject_Vectorcall(scanner, args, 2, NULL);
    Py_XDECREF(place);
    if (pair == NULL) return NULL;
    PyObject *value = NULL;
    if (PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) {
        Py_ssize_t end = PyLong_AsSsize_t(PyTuple_GET_ITEM(pair, 1));
        if (end > reader->place && end <= PyUnicode_GET_LENGTH(reader->text)) {
            count_to(reader, end - reader->place);
            value = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
        }
    }
    Py_DECREF(pair);
    return value;
}

/* --- values ---------------------------------------------------------------------------------------- */

static PyObject *read_call(Reader *reader, Node *node)
{
    PyObject *value = *reader->at == '"' ? read_text(reader) : scanned(reader, node->first);
    PyObject *made = value == NULL ? NULL : PyObject_CallOneArg(node->second, value);
    Py_XDECREF(value);
    return made;
}

static PyObject *read_array(Reader *reader, Node *node)
{
    if (!take(reader, '[')) return NULL;
    PyObject *made = PyList_New(0);
    if (made == NULL) return NULL;
    skip_blanks(reader);
    if (take(reader, ']')) return made;
    while (true) {
        PyObject *value = read_node(reader, node_of(node, 0));
        int failed = value == NULL ? -1 : PyList_Append(made, value);
        Py_XDECREF(value);
        if (failed < 0) break;
        skip_blanks(reader);
        if (take(reader, ']')) return made;
        if (!take(reader, ',')) break;
        skip_blanks(reader);
    }
    Py_DECREF(made);
    return NULL;
}

/* Make an instance of the fields, which are borrowed. */
static PyObject *instance_of(Node *node, PyObject **fields)
{
    Py_ssize_t count = PyTuple_GET_SIZE(node->nodes), keywords = PyTuple_GET_SIZE(node->keywords);
    PyTypeObject *class = (PyTypeObject *)node->first;
    if (node->assigns) {
        PyObject *made = class->tp_alloc(class, 0);
        for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
            *(PyObject **)((char *)made + node->at[i]) = Py_NewRef(fields[i]);
        }
        return made;
    }
    PyObject *few[FEW_FIELDS], **args = few;
    if (count > FEW_FIELDS) {
        args = PyMem_Malloc((size_t)count * sizeof(PyObject *));
        if (args == NULL) return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        args[i] = fields[node->order[i]];
    }
    PyObject *made = PyObject_Vectorcall(node->first, args, (size_t)(count - keywords), keywords > 0 ? node->keywords : NULL);
    if (args != few) {
        PyMem_Free(args);
    }
    return made;
}

static inline bool is_piece(const Piece *piece, const Piece *other)
{
    return piece->size == other->size && memcmp(piece->start, other->start, (size_t)piece->size) == 0;
}

/* Which of a node's keys it is, the `likely` one first; -1 if it is none. */
static inline Py_ssize_t key_of(Node *node, const Piece *piece, Py_ssize_t likely)
{
    Py_ssize_t count = PyTuple_GET_SIZE(node->keys);
    if (likely < count && is_piece(piece, &node->pieces[likely])) return likely;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (is_piece(piece, &node->pieces[i])) return i;
    }
    return -1;
}

/* Read one field with its key; false for a misfit. */
static bool read_field(Reader *reader, Node *node, const Piece *tag, PyObject **fields, Py_ssize_t *likely)
{
    Piece key;
    if (!take_plain(reader, &key)) return false;
    skip_blanks(reader);
    if (!take(reader, ':')) return false;
    skip_blanks(reader);
    Py_ssize_t i = key_of(node, &key, *likely);
    if (i >= 0) {
        if (fields[i] != NULL) return false;    /* twice: the last one counts */
        fields[i] = read_node(reader, node_of(node, i));
        *likely = i + 1;
        return fields[i] != NULL;
    }
    if (node->exact || (tag != NULL && is_piece(&key, tag))) return false;
    PyObject *skipped = scanned(reader, node->second);
    Py_XDECREF(skipped);
    return skipped != NULL;
}

/* Read fields to the end of the object; some are before it, such as the tag, if it does not begin here. */
static bool read_fields(Reader *reader, Node *node, const Piece *tag, PyObject **fields, bool begins)
{
    Py_ssize_t likely = 0;
    skip_blanks(reader);
    if (take(reader, '}')) return true;
    if (!begins && !take(reader, ',')) return false;
    while (true) {
        skip_blanks(reader);
        if (!read_field(reader, node, tag, fields, &likely)) return false;
        skip_blanks(reader);
        if (take(reader, '}')) return true;
        if (!take(reader, ',')) return false;
    }
}

/* Read an object from where its brace, or its tag, ends. */
static PyObject *read_record(Reader *reader, Node *node, const Piece *tag)
{
    Py_ssize_t count = PyTuple_GET_SIZE(node->nodes);
    PyObject *few[FEW_FIELDS], **fields = few, *made = NULL;
    if (count > FEW_FIELDS) {
        fields = PyMem_Malloc((size_t)count * sizeof(PyObject *));
        if (fields == NULL) return PyErr_NoMemory();
    }
    memset(fields, 0, (size_t)count * sizeof(PyObject *));
    bool complete = read_fields(reader, node, tag, fields, tag == NULL);
    for (Py_ssize_t i = 0; i < count && complete; i++) {
        complete = fields[i] != NULL;
    }
    if (complete) {
        made = instance_of(node, fields);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(fields[i]);
    }
    if (fields != few) {
        PyMem_Free(fields);
    }
    return made;
}

static PyObject *read_tagged(Reader *reader, Node *node)
{
    const Piece *tag_key = &node->pieces[PyTuple_GET_SIZE(node->keys)];
    Piece key, tag;
    if (!take(reader, '{')) return NULL;
    skip_blanks(reader);
    if (!take_plain(reader, &key) || !is_piece(&key, tag_key)) return NULL;
    skip_blanks(reader);
    if (!take(reader, ':')) return NULL;
    skip_blanks(reader);
    if (!take_plain(reader, &tag)) return NULL;
    Py_ssize_t i = key_of(node, &tag, 0);
    return i < 0 ? NULL : read_record(reader, node_of(node, i), tag_key);
}

static PyObject *read_deep(Reader *reader, Node *node)
{
    switch (node->kind) {
    case OPTION:
        return take_word(reader, "null", 4) ? Py_NewRef(Py_None) : read_node(reader, node_of(node, 0));
    case ARRAY:
        return read_array(reader, node);
    case RECORD:
        return take(reader, '{') ? read_record(reader, node, NULL) : NULL;
    case TAGGED:
        return read_tagged(reader, node);
    case CALL:
        return read_call(reader, node);
    default:
        return NULL;
    }
}

/* A new reference; NULL for a misfit, with or without an exception. */
static PyObject *read_node(Reader *reader, Node *node)
{
    switch (node->kind) {
    case TEXT:
        return read_text(reader);
    case INTEGER:
        return read_integer(reader);
    case NUMBER:
        return read_float(reader);
    case TRUTH:
        return read_truth(reader);
    default:
        break;
    }
    if (Py_EnterRecursiveCall(" in JSON")) return NULL;
    PyObject *made = read_deep(reader, node);
    Py_LeaveRecursiveCall();
    return made;
}

static PyObject *read_whole(Node *node, PyObject *text)
{
    Reader reader;
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(text)) return NULL;
    const char *start = PyUnicode_AsUTF8AndSize(text, &size);
    if (start == NULL) return NULL;
    reader.text = text;
    reader.at = reader.counted = start;
    reader.end = start + size;
    reader.place = 0;
    PyObject *made = read_node(&reader, node);
    if (made != NULL && reader.at != reader.end) {
        Py_CLEAR(made);
    }
    return made;
}

static PyObject *node_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a reader takes one text");
        return NULL;
    }
    PyObject *made = read_whole((Node *)self, args[0]);
    return made != NULL ? made : as_misfit(state_of(self)->misfit);
}

/* --- pages of events ------------------------------------------------------------------------------- */

enum { OF_TYPE, EVENT_TYPE, EVENT_VERSION, PAIRS, COMMON_COUNT };
enum { ENVELOPE_FIELDS = 7, EVENT_FIELDS = 7 };

/* The columns of a page: lists of as many. */
enum { COMMON, POSITIONS, TIMES, IDS, SEQUENCES, PAYLOADS, COLUMN_COUNT };

static PyObject *moment_of(PyObject *milliseconds)
{
    if (milliseconds == Py_None) return Py_NewRef(Py_None);
    if (!PyLong_CheckExact(milliseconds)) return NULL;
    long long number = PyLong_AsLongLong(milliseconds);
    if (number < -(1LL << 53) || number > 1LL << 53) return NULL;   /* -1 with an exception too: see `event_at` */
    return PyFloat_FromDouble((double)number / 1000);
}

/* Make the event in one place of a page; NULL for a misfit. */
static PyObject *event_at(Node *reader, Node *envelope, Node *event, PyObject **columns, Py_ssize_t i)
{
    PyObject *row[COLUMN_COUNT];
    for (int column = 0; column < COLUMN_COUNT; column++) {
        if (i >= PyList_GET_SIZE(columns[column])) return NULL;
        row[column] = PyList_GET_ITEM(columns[column], i);
    }
    PyObject *common = row[COMMON];
    if (!PyTuple_CheckExact(common) || PyTuple_GET_SIZE(common) < COMMON_COUNT) return NULL;
    PyObject *pairs = PyTuple_GET_ITEM(common, PAIRS);
    if (!PyUnicode_CheckExact(row[IDS]) || !PyLong_CheckExact(row[SEQUENCES]) || !PyList_CheckExact(pairs)) return NULL;
    PyObject *moment = moment_of(row[TIMES]);
    PyObject *value = moment == NULL || PyErr_Occurred() ? NULL : read_whole(reader, row[PAYLOADS]);
    PyObject *copy = value == NULL ? NULL : PyList_GetSlice(pairs, 0, PyList_GET_SIZE(pairs));
    PyObject *made = NULL, *result = NULL;
    if (copy != NULL) {
        made = instance_of(envelope, (PyObject *[ENVELOPE_FIELDS]){
            row[IDS], row[SEQUENCES], value, copy, PyTuple_GET_ITEM(common, EVENT_TYPE),
            PyTuple_GET_ITEM(common, EVENT_VERSION), PyTuple_GET_ITEM(common, OF_TYPE)});
    }
    if (made != NULL) {
        result = instance_of(event, (PyObject *[EVENT_FIELDS]){
            row[POSITIONS], row[IDS], row[SEQUENCES], made, Py_None, moment, row[PAYLOADS]});
    }
    Py_XDECREF(made);
    Py_XDECREF(copy);
    Py_XDECREF(value);
    Py_XDECREF(moment);
    return result;
}

static bool is_class_of(State *state, PyObject *node, Py_ssize_t count)
{
    return Py_IS_TYPE(node, state->node_type) && ((Node *)node)->kind == RECORD && PyTuple_GET_SIZE(((Node *)node)->nodes) == count;
}

/* A list of events, None where one is a misfit, and a list of these places. */
static PyObject *events_of(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = PyModule_GetState(module);
    if (nargs != 3 + COLUMN_COUNT || !Py_IS_TYPE(args[0], state->node_type) ||
        !is_class_of(state, args[1], ENVELOPE_FIELDS) || !is_class_of(state, args[2], EVENT_FIELDS)) {
        PyErr_SetString(PyExc_TypeError, "events_of takes readers of the payload, an envelope and an event, and columns");
        return NULL;
    }
    PyObject *columns[COLUMN_COUNT];
    for (int i = 0; i < COLUMN_COUNT; i++) {
        columns[i] = args[3 + i];
        if (!PyList_CheckExact(columns[i]) || PyList_GET_SIZE(columns[i]) != PyList_GET_SIZE(columns[0])) {
            PyErr_SetString(PyExc_TypeError, "columns are lists of the same size");
            return NULL;
        }
    }
    Py_ssize_t count = PyList_GET_SIZE(columns[0]);
    PyObject *made = PyList_New(count), *misfits = PyList_New(0), *pair = NULL;
    for (Py_ssize_t i = 0; made != NULL && misfits != NULL && i < count; i++) {
        PyObject *event = event_at((Node *)args[0], (Node *)args[1], (Node *)args[2], columns, i);
        if (event == NULL) {
            event = as_misfit(Py_None);
            PyObject *place = event == NULL ? NULL : PyLong_FromSsize_t(i);
            if (place == NULL || PyList_Append(misfits, place) < 0) {
                Py_CLEAR(misfits);
            }
            Py_XDECREF(place);
        }
        PyList_SET_ITEM(made, i, event);
    }
    if (made != NULL && misfits != NULL) {
        pair = PyTuple_Pack(2, made, misfits);
    }
    Py_XDECREF(made);
    Py_XDECREF(misfits);
    return pair;
}

/* --- making ---------------------------------------------------------------------------------------- */

static bool are_all(PyObject *tuple, PyTypeObject *type)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(tuple, i), type)) return false;
    }
    return true;
}

/* Whether what was given is what the kind needs. */
static bool is_complete(Node *node, Kind kind)
{
    Py_ssize_t nodes = PyTuple_GET_SIZE(node->nodes);
    bool keyed = PyTuple_GET_SIZE(node->keys) == nodes && are_all(node->keys, &PyUnicode_Type);
    switch (kind) {
    case TEXT:
    case INTEGER:
    case NUMBER:
    case TRUTH:
        return true;
    case OPTION:
    case ARRAY:
        return nodes == 1;
    case RECORD:
        return keyed && node->first != NULL && PyType_Check(node->first) && node->second != NULL &&
            PyTuple_GET_SIZE(node->names) == nodes && PyTuple_GET_SIZE(node->keywords) <= nodes;
    case TAGGED:
        return keyed && node->first != NULL && PyUnicode_CheckExact(node->first);
    case CALL:
        return node->first != NULL && node->second != NULL;
    default:
        return false;
    }
}

static int set_piece(Piece *piece, PyObject *text)
{
    piece->start = PyUnicode_AsUTF8AndSize(text, &piece->size);
    return piece->start == NULL ? -1 : 0;
}

static int find_pieces(Node *node)
{
    Py_ssize_t count = PyTuple_GET_SIZE(node->keys);
    node->pieces = PyMem_Calloc((size_t)count + 1, sizeof(Piece));
    if (node->pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (set_piece(&node->pieces[i], PyTuple_GET_ITEM(node->keys, i)) < 0) return -1;
    }
    return node->first != NULL && PyUnicode_CheckExact(node->first) ? set_piece(&node->pieces[count], node->first) : 0;
}

/* Find where the fields go: into slots if the class does nothing but assign, or to arguments in an order. */
static int find_fields(Node *node, bool assigns, PyObject *order)
{
    Py_ssize_t count = PyTuple_GET_SIZE(node->names);
    PyTypeObject *class = (PyTypeObject *)node->first;
    node->at = PyMem_Calloc((size_t)count + 1, sizeof(Py_ssize_t));
    node->order = PyMem_Calloc((size_t)count + 1, sizeof(Py_ssize_t));
    if (node->at == NULL || node->order == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    node->assigns = assigns && class->tp_new == PyBaseObject_Type.tp_new && !(class->tp_flags & Py_TPFLAGS_IS_ABSTRACT);
    for (Py_ssize_t i = 0; i < count; i++) {
        node->at[i] = slot_of(node->first, PyTuple_GET_ITEM(node->names, i));
        if (node->at[i] == -2) return -1;
        node->assigns = node->assigns && node->at[i] >= 0;
    }
    if (!PyTuple_CheckExact(order) || PyTuple_GET_SIZE(order) != count) goto wrong;
    for (Py_ssize_t i = 0; i < count; i++) {
        node->order[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(order, i));
        if (node->order[i] < 0 || node->order[i] >= count) goto wrong;
    }
    return 0;
wrong:
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "no order of the arguments");
    }
    return -1;
}

static PyObject *node_become(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "first", "second", "nodes", "keys", "names", "order", "keywords", "assigns", "exact", NULL};
    Node *node = (Node *)self;
    int kind, assigns = 0, exact = 0;
    PyObject *first = NULL, *second = NULL, *nodes = NULL, *keys = NULL, *fields = NULL, *order = NULL, *keywords = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "i|OOO!O!O!O!O!pp", names, &kind, &first, &second, &PyTuple_Type, &nodes, &PyTuple_Type, &keys,
            &PyTuple_Type, &fields, &PyTuple_Type, &order, &PyTuple_Type, &keywords, &assigns, &exact)) {
        return NULL;
    }
    if (node->kind != UNMADE || node->nodes != NULL || (nodes != NULL && !are_all(nodes, Py_TYPE(self)))) {
        PyErr_SetString(PyExc_ValueError, "not a reader, or one that is made");
        return NULL;
    }
    node->first = Py_XNewRef(first);
    node->second = Py_XNewRef(second);
    node->nodes = nodes != NULL ? Py_NewRef(nodes) : PyTuple_New(0);
    node->keys = keys != NULL ? Py_NewRef(keys) : PyTuple_New(0);
    node->names = fields != NULL ? Py_NewRef(fields) : PyTuple_New(0);
    node->keywords = keywords != NULL ? Py_NewRef(keywords) : PyTuple_New(0);
    if (node->nodes == NULL || node->keys == NULL || node->names == NULL || node->keywords == NULL) return NULL;
    if (!is_complete(node, (Kind)kind)) {
        PyErr_SetString(PyExc_ValueError, "not all that this kind of reader needs");
        return NULL;
    }
    node->exact = exact;
    if (find_pieces(node) < 0) return NULL;
    if (kind == RECORD && find_fields(node, assigns, order != NULL ? order : Py_None) < 0) return NULL;
    if (kind == TAGGED) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(node->nodes); i++) {
            Kind of = node_of(node, i)->kind;
            if (of == RECORD || of == UNMADE) continue;     /* that is being made */
            PyErr_SetString(PyExc_ValueError, "a tag stands for a class");
            return NULL;
        }
    }
    node->kind = (Kind)kind;
    Py_RETURN_NONE;
}

static PyObject *node_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names)) return NULL;
    Node *node = (Node *)type->tp_alloc(type, 0);
    if (node == NULL) return NULL;
    node->call = node_call;
    node->kind = UNMADE;
    return (PyObject *)node;
}

static int node_traverse(PyObject *self, visitproc visit, void *arg)
{
    Node *node = (Node *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(node->first);
    Py_VISIT(node->second);
    Py_VISIT(node->nodes);
    Py_VISIT(node->keys);
    Py_VISIT(node->names);
    Py_VISIT(node->keywords);
    return 0;
}

static int node_clear(PyObject *self)
{
    Node *node = (Node *)self;
    node->kind = UNMADE;
    Py_CLEAR(node->first);
    Py_CLEAR(node->second);
    Py_CLEAR(node->nodes);
    Py_CLEAR(node->keys);
    Py_CLEAR(node->names);
    Py_CLEAR(node->keywords);
    return 0;
}

static void node_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    node_clear(self);
    PyMem_Free(((Node *)self)->pieces);
    PyMem_Free(((Node *)self)->at);
    PyMem_Free(((Node *)self)->order);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef node_methods[] = {
    {"become", (PyCFunction)(void (*)(void))node_become, METH_VARARGS | METH_KEYWORDS,
     "become(kind, first=..., second=..., nodes=(), keys=(), names=(), order=..., keywords=(), assigns=False, exact=False)\n--\n\n"
     "Say, once, what this reader reads."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef node_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Node, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot node_slots[] = {
    {Py_tp_doc, "A reader: called with a JSON text, it returns the value, or MISFIT."},
    {Py_tp_new, node_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, node_traverse},
    {Py_tp_clear, node_clear},
    {Py_tp_dealloc, node_dealloc},
    {Py_tp_methods, node_methods},
    {Py_tp_members, node_members},
    {0, NULL},
};

static PyType_Spec node_spec = {
    .name = "pyglyn.eventsourcing.stores.json._reading.Reader",
    .basicsize = sizeof(Node),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = node_slots,
};

/* --- the module ------------------------------------------------------------------------------------ */


static const char *const kind_names[] = {KINDS(AS_NAME)};

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->node_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &node_spec, NULL);
    state->misfit = add_kinds(module, kind_names, KIND_COUNT);
    if (state->node_type == NULL || state->misfit == NULL) return -1;
    return PyModule_AddObjectRef(module, "Reader", (PyObject *)state->node_type);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->node_type);
    Py_VISIT(state->misfit);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->node_type);
    Py_CLEAR(state->misfit);
    return 0;
}

static PyMethodDef methods[] = {
    {"events_of", (PyCFunction)(void (*)(void))events_of, METH_FASTCALL,
     "events_of(reader, envelope, event, common, positions, times, ids, sequences, payloads, /)\n--\n\n"
     "Make the events of a page, given by columns; None in place of a misfit. And the places of those."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = MODULE_SLOTS(module_exec);

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyglyn.eventsourcing.stores.json._reading",
    .m_doc = "JSON texts to values of derived types in C; see pyglyn.eventsourcing.stores.json.plans.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__reading(void)
{
    return PyModuleDef_Init(&definition);
}
