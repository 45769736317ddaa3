"""The functions of ``pure`` and ``normaliser``, faster."""

from pyglyn.etf.normaliser import normalise as normalise
from pyglyn.etf.pure import decode as decode
from pyglyn.etf.pure import decode_bare as decode_bare
from pyglyn.etf.pure import decode_prefix as decode_prefix
from pyglyn.etf.pure import encode as encode
from pyglyn.etf.pure import encode_bare as encode_bare
from pyglyn.etf.pure import encode_parts as encode_parts
