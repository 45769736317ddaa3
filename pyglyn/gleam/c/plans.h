/* What the files of the plans in C share. Layer: gleam, pure.
 *
 *     plans.c        the module, and how plans are made
 *     by_terms.c     terms to values, values to terms
 *     from_bytes.c   encoded terms to values
 *     to_bytes.c     values to encoded terms
 *
 * A plan does what the functions of decoding.py and encoding.py do for values that fit. It is a tree of nodes, or a graph
 * for a recursive type, made by plans.py beside the Python function for the same type. Given a term or value it gives what
 * that function would return; or MISFIT, whatever the reason, and then that function is called, which alone says what is
 * wrong. What is not here (sets, enums on their way out, hooks of users) is a node that calls a Python function; what one
 * raises is a misfit like any other.
 *
 * From bytes and to bytes there are no terms in between where a node has none of its own: the input is read by the
 * codec's Reader, under the same limits in the same order, and written by its Writer. What is rare in the bytes (long
 * forms of atoms, lists in pieces) or not right is a misfit there: then a term is made, and all begins anew.
 *
 * An instance of a class whose `__init__` does nothing but assign (see `plans.assigns_only`) is made without it.
 *
 * Threads: under the GIL, see codec.h; a list that a hook changes meanwhile is noticed.
 */

#ifndef PYGLYN_PLANS_H
#define PYGLYN_PLANS_H

#include "../../etf/c/codec.h"
#include "kinds.h"

/* What a node does, and what it needs for it. */
#define KINDS(X) \
    X(UNMADE)       /* nothing yet */ \
    X(AS_IT_IS) \
    X(NATIVE)       /* first: the type */ \
    X(TEXT_IN) \
    X(TEXT_OUT) \
    X(FLOAT_OUT) \
    X(LIST)         /* nodes: the element */ \
    X(TUPLE)        /* nodes: the elements */ \
    X(DICT_IN)      /* nodes: key and value */ \
    X(OPTION_IN)    /* first: the atom none, second: some; nodes: the inner */ \
    X(OPTION_OUT)   /* the same */ \
    X(UNION_IN)     /* first: {atom: node}, second: {atom: {size: node}}, third: {type of term: node} */ \
    X(UNION_OUT)    /* first: {class: node} */ \
    X(ENUM_IN)      /* first: {atom: member} */ \
    X(CLASS_IN)     /* first: the class, second and third: its atoms; nodes and names: the fields */ \
    X(CLASS_OUT)    /* first: the class, second: its atom; nodes and names: the fields */ \
    X(BY_CLASS)     /* first: {class: node} of those met so far; second: gives the node of a class */ \
    X(CALL)         /* first: the function */

#define AS_PLAN_KIND(name) P_##name,
typedef enum { KINDS(AS_PLAN_KIND) PLAN_KIND_COUNT } PlanKind;

struct plan;

/* How a term begins that has this atom as its tag, encoded, and whose it is; the bytes are those of `kept`. */
typedef struct {
    PyObject *kept;
    struct plan *node;
} Head;

typedef struct plan {
    PyObject_HEAD
    vectorcallfunc call;
    PlanKind kind;
    PyObject *first, *second, *third;
    PyObject *nodes;            /* a tuple of plans */
    PyObject *names;            /* a tuple of str: the attributes */
    PyObject *keywords;         /* a tuple of str: the last arguments of the class, by keyword */
    Py_ssize_t *order;          /* which field is which argument of the class; NULL: no call is needed */
    Py_ssize_t *at;             /* where the slot of each attribute is, -1 for one that is in no slot */
    Head *heads;                /* of options: none and some; of classes: one or two; of unions: one a constructor */
    Py_ssize_t head_count;
} Plan;

typedef struct {
    PyTypeObject *plan_type;
    PyObject *misfit;
    PyObject *codec;            /* the module that the state is of */
    State *etf;
} Plans;

static inline Plan *node_of(Plan *plan, Py_ssize_t i)
{
    return (Plan *)PyTuple_GET_ITEM(plan->nodes, i);
}

/* --- by_terms.c --- */

/* What the plan makes of a term or value, a new reference; NULL for a misfit, with or without an exception. */
PyObject *run_plan(Plans *plans, Plan *plan, PyObject *subject);
/* The node of an instance of a class that was not met before, a new reference. */
Plan *plan_of_class(Plans *plans, Plan *plan, PyObject *value);
/* Make an instance with these fields; takes the references, whatever comes of it. */
PyObject *make_instance(Plan *plan, PyObject **fields);

/* --- from_bytes.c --- */

/* What the plan makes of an encoded term at the reader's position, and go past it; NULL for a misfit. */
PyObject *read_plan(Plans *plans, Plan *plan, Reader *reader);

/* --- to_bytes.c --- */

/* Write what the plan makes of a value; -1 for a misfit. */
int write_plan(Plans *plans, Plan *plan, Writer *writer, PyObject *value);

#endif
