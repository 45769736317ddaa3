/* What the files of the codec in C share. Layer: etf, pure.
 *
 *     module.c       the functions Python sees, and what this module uses of the package
 *     atoms.c        names, atoms and pids that are known already
 *     terms_in.c     bytes to terms
 *     terms_out.c    terms to bytes
 *     normal.c       terms as the receiver would see them
 *     frames.c       frames around terms: cut off a stream, put together
 *     walk.c         what these three have in common: walking without recursion, making containers
 *     identifiers.c  hash and equality of pids, ports and references
 *
 * atoms.c, terms_in.c, terms_out.c and walk.c are in `pyglyn.gleam._plans` as well, which reads and writes values
 * in place of terms; it uses the state of this module, so they share what is remembered (see STATE_CAPSULE).
 *
 * The definition is in Python, next door; each function names its twin. For right input, results are the
 * same. What C finds wrong, or does not do, it leaves to Python: a term that is being read goes on there at
 * the very step where C stopped (`decoder.Walk`), so that bad input costs no more than good; a value that is
 * being written begins anew. So there are no error texts here and no second opinion about rules.
 *
 * Inside, a function that fails returns NULL or -1, with or without an exception set.
 *
 * Trust: nobody's lengths. Memory is taken for elements that were read, never for elements declared. Nothing
 * recurses by the depth of the input.
 *
 * Threads: everything runs under the GIL, and no lock protects the caches; a free-threaded build turns the
 * GIL on when it imports this. Python code that is called in between (see `Reader.gc` and `write_leaf`), and
 * whoever runs while it does, may write to the input but not resize it, as it is held as a buffer; and may
 * change the list or dict that is being written, which is noticed. All state is in the module object, so each
 * interpreter has its own.
 */

#ifndef PYGLYN_CODEC_H
#define PYGLYN_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef Py_T_OBJECT_EX
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

/* See tags.py. */
enum {
    VERSION = 131,
    NEW_FLOAT_EXT = 70,
    BIT_BINARY_EXT = 77,
    COMPRESSED = 80,
    NEW_PID_EXT = 88,
    NEW_PORT_EXT = 89,
    NEWER_REFERENCE_EXT = 90,
    SMALL_INTEGER_EXT = 97,
    INTEGER_EXT = 98,
    FLOAT_EXT = 99,
    ATOM_EXT = 100,
    REFERENCE_EXT = 101,
    PORT_EXT = 102,
    PID_EXT = 103,
    SMALL_TUPLE_EXT = 104,
    LARGE_TUPLE_EXT = 105,
    NIL_EXT = 106,
    STRING_EXT = 107,
    LIST_EXT = 108,
    BINARY_EXT = 109,
    SMALL_BIG_EXT = 110,
    LARGE_BIG_EXT = 111,
    NEW_FUN_EXT = 112,
    EXPORT_EXT = 113,
    NEW_REFERENCE_EXT = 114,
    SMALL_ATOM_EXT = 115,
    MAP_EXT = 116,
    ATOM_UTF8_EXT = 118,
    SMALL_ATOM_UTF8_EXT = 119,
    V4_PORT_EXT = 120,
};

enum {
    LARGE_PART = 64 * 1024,     /* as in writers.py */
    MAX_TUPLE_ARITY = (1 << 24) - 1,
    MAX_STRING = 0xFFFF,
    MAX_ATOM_CHARACTERS = 255,
    MAX_REFERENCE_WORDS = 5,
    MAX_KEY_DEPTH = 8,          /* as in maps.py */
    MAX_COLLISIONS = 100,       /* as in maps.py */
    KNOWN_ATOMS = 1024,         /* a power of two; at most some 1.5 KiB each */
    KNOWN_PIDS = 1024,
    KNOWN_INTEGERS = 4096,      /* those from 0 up to this that were read before: at most 32 bytes each */
    KNOWN_CREATIONS = 64,       /* a power of two */
};

/* A class whose instances have their fields in slots, and where those are. */
typedef struct {
    PyTypeObject *type;
    Py_ssize_t at[5];
} Class;

static inline PyObject **slot(PyObject *object, const Class *class, int field)
{
    return (PyObject **)((char *)object + class->at[field]);
}

typedef struct {
    PyObject *name;             /* str; owns the bytes */
    const char *utf8;
    Py_ssize_t size;
    PyObject *value;            /* the Atom, or what stands for it */
} KnownAtom;

typedef struct {
    PyObject *pid;
    PyObject *node;
    uint32_t id, serial, creation;
} KnownPid;

struct Reader;

/* What this module uses of the package (see `imports` in module.c), and what it remembers. */
typedef struct State {
    size_t layout;              /* its size: another module was built from the same header, or is not to use it */
    /* For modules that are not linked with it: those below of these names. */
    void (*begin_reading)(struct Reader *, struct State *, const uint8_t *, Py_ssize_t, Py_ssize_t);
    PyObject *(*read_term)(struct Reader *);
    void (*end_reading)(struct Reader *);
    PyObject *decode, *decode_prefix, *decode_bare, *encode, *encode_bare, *encode_parts, *normalise;
    PyObject *go_on, *trailing, *unpack, *read;
    PyObject *join_frames, *pack_frame;
    PyObject *default_limits;
    PyObject *leaf_readers, *leaf_writers;
    PyObject *atom_value, *make_map, *check_keys;
    PyObject *fun_type, *bit_string_type;
    Class atom, pid, port, reference, export, improper_list, term_map;
    Py_ssize_t default_elements, default_depth;
    PyObject *bytes_of[256];    /* the integers that a byte can be; they always exist */
    uintptr_t bytes_end;        /* how far they reach from the first one, 0 if they do not lie in a row */
    int bytes_shift;            /* log2 of the distance between two of them */
    PyObject *integers[KNOWN_INTEGERS];     /* NULL for one not read yet */
    PyObject *creations[KNOWN_CREATIONS];   /* each where its lowest bits say */
    KnownAtom atoms[KNOWN_ATOMS];
    KnownPid pids[KNOWN_PIDS];
} State;

/* The attribute of the module that holds its state, and the capsule's name. */
#define STATE_ATTRIBUTE "_state"
#define STATE_CAPSULE "pyglyn.etf._speedups._state"

static inline State *state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

/* --- atoms.c --- */

/* The name and the value of the atom with these bytes as its name, new references; false if there is none.
 * One of the two may be NULL where it is not asked for. */
bool find_atom(State *state, const uint8_t *utf8, Py_ssize_t size, PyObject **name, PyObject **value);

/* The pid with these fields, a new reference. */
PyObject *find_pid(State *state, PyObject *node, uint32_t id, uint32_t serial, uint32_t creation);

/* The number of 32 bits that says which start of a node it is, a new reference. */
PyObject *find_creation(State *state, uint32_t creation);

void forget_all(State *state);

/* --- bytes ----------------------------------------------------------------------------------------- */

/* Numbers with the highest byte first; spelled out, compilers know what it is: one instruction. */
static inline uint32_t u32_of(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline uint64_t u64_of(const uint8_t *bytes)
{
    return (uint64_t)bytes[0] << 56 | (uint64_t)bytes[1] << 48 | (uint64_t)bytes[2] << 40 | (uint64_t)bytes[3] << 32 |
        (uint64_t)bytes[4] << 24 | (uint64_t)bytes[5] << 16 | (uint64_t)bytes[6] << 8 | bytes[7];
}

static inline void put_u64(uint8_t *to, uint64_t value)
{
    to[0] = (uint8_t)(value >> 56);
    to[1] = (uint8_t)(value >> 48);
    to[2] = (uint8_t)(value >> 40);
    to[3] = (uint8_t)(value >> 32);
    to[4] = (uint8_t)(value >> 24);
    to[5] = (uint8_t)(value >> 16);
    to[6] = (uint8_t)(value >> 8);
    to[7] = (uint8_t)value;
}

/* --- numbers --------------------------------------------------------------------------------------- */

static inline PyObject *integer_of(State *state, int32_t value)
{
    if ((uint32_t)value >= KNOWN_INTEGERS) return PyLong_FromLong(value);
    PyObject **known = &state->integers[value];
    if (*known == NULL && (*known = PyLong_FromLong(value)) == NULL) return NULL;
    return Py_NewRef(*known);
}

/* A number of 32 bits; `PyLong_FromLong` is the faster one. */
static inline PyObject *word_of(uint32_t value)
{
    return value >> 30 ? PyLong_FromUnsignedLong(value) : PyLong_FromLong((long)value);
}

/* The magnitude of an int of at most two digits (60 bits), and whether it is below 0; false for larger ones. */
static inline bool small_integer(PyObject *number, uint64_t *magnitude, bool *negative)
{
#if PYLONG_BITS_IN_DIGIT == 30 && PY_VERSION_HEX < 0x030F0000
#if PY_VERSION_HEX < 0x030C0000
    Py_ssize_t size = Py_SIZE(number), digits = size < 0 ? -size : size;
    const digit *digit_of = ((PyLongObject *)number)->ob_digit;
    *negative = size < 0;
#else
    uintptr_t tag = ((PyLongObject *)number)->long_value.lv_tag, digits = tag >> _PyLong_NON_SIZE_BITS;
    const digit *digit_of = ((PyLongObject *)number)->long_value.ob_digit;
    *negative = (tag & _PyLong_SIGN_MASK) == 2;
#endif
    if (digits > 2) return false;
    *magnitude = digits == 0 ? 0 : digits == 1 ? digit_of[0] : (uint64_t)digit_of[1] << 30 | digit_of[0];
    return true;
#else
    (void)number, (void)magnitude, (void)negative;
    return false;
#endif
}

/* --- walk.c --- */

enum { FEW_ITEMS = 64, FEW_OPEN = 24 };

/* Objects, the last one on top; it owns them. */
typedef struct {
    PyObject **items, **top, **end;
    PyObject *few[FEW_ITEMS];
} Stack;

void begin_stack(Stack *stack);
bool more_items(Stack *stack);
void drop_items(Stack *stack, PyObject **down_to);
void end_stack(Stack *stack);

/* Takes the reference, also when it fails. */
static inline bool push(Stack *stack, PyObject *item)
{
    if (stack->top == stack->end && !more_items(stack)) {
        Py_DECREF(item);
        return false;
    }
    *stack->top++ = item;
    return true;
}

typedef enum { TUPLE, LIST, IMPROPER_LIST, DICT, ENTRIES } Kind;

/* A container of which not all elements were visited. */
typedef struct {
    PyObject *container;        /* strong */
    PyObject *held;             /* strong: the value of a map's key under way, or NULL */
    Py_ssize_t at, size, visited;
    Py_ssize_t base;            /* for whoever walks */
    Kind kind;
} Open;

/* The containers around a value, the outermost first. */
typedef struct {
    State *state;
    Open *open;
    Py_ssize_t depth, room;
    Py_ssize_t mark;            /* how deep the container is that must not come again */
    Open few[FEW_OPEN];
} Path;

void begin_path(Path *path, State *state);
/* Go into a container, of which the size is that of `size_of`; false if it contains itself. */
bool enter(Path *path, PyObject *container, Kind kind, Py_ssize_t size);
PyObject *next_rare(Path *path);
/* The next element of the innermost container, borrowed from it, keys before their values. NULL at its end; or
 * with a `size` of -1, where it was changed meanwhile. */
static inline PyObject *next_element(Path *path)
{
    Open *frame = &path->open[path->depth - 1];
    if (frame->kind == TUPLE) {
        return frame->at == frame->size ? NULL : PyTuple_GET_ITEM(frame->container, frame->at++);
    }
    if (frame->kind != LIST) return next_rare(path);
    if (PyList_GET_SIZE(frame->container) != frame->size) {
        frame->size = -1;
        return NULL;
    }
    return frame->at == frame->size ? NULL : PyList_GET_ITEM(frame->container, frame->at++);
}

void leave(Path *path);
void end_path(Path *path);

/* encoder.check_keys */
int check_keys(State *state, PyObject *map);
/* The entries of a TermMap, borrowed, or NULL. */
PyObject *entries_of(State *state, PyObject *map);

/* maps.make_map, of keys and values in turn: NULL where the keys are not plain, or without memory. */
PyObject *make_plain_map(State *state, PyObject **items, Py_ssize_t count);
/* The same for any keys, by a call into Python. */
PyObject *make_any_map(State *state, PyObject **items, Py_ssize_t count);
/* The items become those of what is made: their references move, unless it fails. */
PyObject *make_tuple(PyObject **items, Py_ssize_t count, bool cyclic);
PyObject *make_list(PyObject **items, Py_ssize_t count);
/* The last item is the tail. */
PyObject *make_improper(State *state, PyObject **items, Py_ssize_t count, bool cyclic);
PyObject *copied_list(PyObject **from, Py_ssize_t count, int step);

/* --- terms_in.c --- */

/* A container of which not all elements are read. Its elements so far are in Reader.stack from `base` on. */
typedef struct {
    Py_ssize_t base, left, start;
    int kind;                   /* its tag, or IMPROPER */
    bool cyclic;                /* whether the garbage collector has to know it */
} Frame;

enum { IMPROPER = -1 };         /* as _IMPROPER in decoder.py: only the tail is missing */

enum { FEW_FRAMES = 16 };

typedef struct Reader {
    State *state;
    const uint8_t *data;
    Py_ssize_t size, pos;
    Py_ssize_t step;            /* where the present step began: where Walk goes on */
    Py_ssize_t budget, max_depth;
    Py_ssize_t funs, depth;
    bool gc;                    /* whether the garbage collector waits for us */
    Frame *frames;
    Py_ssize_t room;
    Frame few_frames[FEW_FRAMES];
    Stack stack;
} Reader;

void begin_reading(Reader *reader, State *state, const uint8_t *data, Py_ssize_t pos, Py_ssize_t size);
PyObject *read_term(Reader *reader);
/* The frames for Walk, after `read_term` failed; see `Walk.resumed`. */
PyObject *frames_of(Reader *reader);
void end_reading(Reader *reader);
/* One field of limits.Limits, -1 for what is no size. */
Py_ssize_t limit_of(PyObject *limits, const char *field);
/* Take over the fields of limits.Limits; false where they are none. */
bool set_limits(Reader *reader, PyObject *limits);
/* Hold the input as a buffer of bytes; false where it is none. What cannot change needs no holding. */
bool hold_input(PyObject *data, Py_buffer *view);
/* Let the garbage collector run while Python code does, and hold it again as it was. */
bool let_gc(Reader *reader);
void hold_gc_again(Reader *reader, bool held);

/* --- terms_out.c --- */

enum { SMALL_TERM = 512 };

/* The bytes so far, in `small` or, when there are more, in the object they will be returned as. */
typedef struct {
    State *state;
    PyObject *parts;            /* encode_parts: the list of finished parts; else NULL */
    PyObject *object;           /* bytes, or NULL while `small` is enough */
    uint8_t *data;
    Py_ssize_t size, room;
    Py_ssize_t most;            /* bytes that it may become, 0 for any number */
    bool full;                  /* it would become more */
    Path path;
    PyObject *held;             /* what the term being written is in, where that is not in `path` any more, or NULL */
    uint8_t small[SMALL_TERM];
} Writer;

void begin_writing(Writer *writer, State *state);
bool more_room(Writer *writer, Py_ssize_t more);

/* Add that many bytes and return where they go, or NULL.
 *
 * With `parts`, 64 KiB at once are a part of its own, which `write_part` knows how to do for an object;
 * what else grows so large (strings, integers) is for pure.py. */
static inline uint8_t *reserve(Writer *writer, Py_ssize_t more)
{
    if (writer->parts != NULL && more >= LARGE_PART) return NULL;
    if (more > writer->room - writer->size && !more_room(writer, more)) return NULL;
    uint8_t *to = writer->data + writer->size;
    writer->size += more;
    return to;
}

int write_term(Writer *writer, PyObject *term);
int write_raw(Writer *writer, const void *bytes, Py_ssize_t size);
/* Give the bytes so far away as an object, and be ready for the next part. */
PyObject *take_written(Writer *writer);
void end_writing(Writer *writer);

/* --- normal.c --- */

/* normaliser.normalise: NULL where it is for Python */
PyObject *normal_of(State *state, PyObject *term);

/* --- frames.c --- */

PyObject *cut_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *join_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *pack_frame(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* --- module.c --- */

/* Forget an error that Python has to find again; false for something like KeyboardInterrupt. */
bool may_go_on(void);

/* --- identifiers.c --- */

/* Give the classes their `__hash__` and `__eq__` in C. */
int speed_up_identifiers(State *state);

#endif
