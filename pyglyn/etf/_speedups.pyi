"""The functions of ``pure``, ``normaliser`` and ``frames``, faster."""

from pyglyn.etf.frames import cut_frames as cut_frames
from pyglyn.etf.frames import join_frames as join_frames
from pyglyn.etf.frames import pack_frame as pack_frame
from pyglyn.etf.normaliser import normalise as normalise
from pyglyn.etf.pure import decode as decode
from pyglyn.etf.pure import decode_bare as decode_bare
from pyglyn.etf.pure import decode_prefix as decode_prefix
from pyglyn.etf.pure import encode as encode
from pyglyn.etf.pure import encode_bare as encode_bare
from pyglyn.etf.pure import encode_parts as encode_parts
