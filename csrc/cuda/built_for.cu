// For `dhn info`: the GPU architectures whose code is inside, as nvcc lists them: "750,800,900".

#define DHN_TEXT(...) #__VA_ARGS__
#define DHN_TEXT_OF(...) DHN_TEXT(__VA_ARGS__)

extern "C" __attribute__((visibility("default"))) const char* dhn_cuda_built_for() {
  return DHN_TEXT_OF(__CUDA_ARCH_LIST__);
}
