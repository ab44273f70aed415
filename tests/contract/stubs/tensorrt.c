/* What NVIDIA's Python bindings link against, doing nothing: it lets them be imported without TensorRT's libraries. */
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *getPluginRegistry(void) { return 0; }
void *getBuilderPluginRegistry(void) { return 0; }
int initLibNvInferPlugins(void) { return 1; }
int getNvOnnxParserVersion(void) { return 0; }
int getInferLibVersion(void) { return 0; }

/* libnvparsers of TensorRT 8: createUffParser, FieldMap, createCaffeParser and shutdownProtobufLibrary, as C++ names them. */
void *_ZN11nvuffparser15createUffParserEv(void) { return 0; }
void _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi(void) {}
void *_ZN14nvcaffeparser117createCaffeParserEv(void) { return 0; }
void _ZN14nvcaffeparser123shutdownProtobufLibraryEv(void) {}
