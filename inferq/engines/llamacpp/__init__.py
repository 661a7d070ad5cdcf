"""The engine that computes with llama.cpp.

The modules here form a thin binding of llama.cpp's C interface, as the shared object of the
``xllamacpp`` package exports it:

- ``structs``, ``functions``: what crosses the border, field by field and call by call
- ``library``: the shared object, loaded and checked once per process
- ``logs``: what llama.cpp had to say, for error messages
- ``handles``: what llama.cpp allocates, freed exactly once
- ``files``, ``gguf``, ``blocks``: finding a model file and telling whether it is whole
- ``model``, ``chat``: weights, vocabulary and chat template
- ``context``, ``batch``, ``failures``: the key-value memory of many sequences and the step
  that fills it
- ``sampling``: from logits to a token
"""
